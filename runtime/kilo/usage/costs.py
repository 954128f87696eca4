"""What tenants cost: measured use times the stage's prices, and what all share, split to the cent.

Money is counted in cents, as whole numbers. Of each thing that has a price, all that was used in a month is
priced at once and rounded once; the cents are then split by use, so tenants' parts are the whole, always.
What nobody in particular used (requests of no tenant) goes to what is shared, with the stage's own monthly
cost, and that is split as the tenants' own costs are; equally, while nobody has any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from kilo.usage.report import Used
from kilo.usage.settings import Prices

_CENTS = 100
_MONTH_HOURS = 730


@dataclass(frozen=True, slots=True)
class Sku:
    """Something that has a price.

    Attributes:
        id: its name in the stage's file.
        meter: what is counted, for people.
        category: FOCUS' service category, with its subcategory.
        consumed_unit: in what it is counted.
        consumed: how much of it was used.
        pricing_unit: of how much the price is.
        scale: how many of the one are one of the other.
    """

    id: str
    meter: str
    category: tuple[str, str]
    consumed_unit: str
    consumed: Callable[[Used], int | Decimal]
    pricing_unit: str
    scale: int

    def quantity(self, used: Used) -> Decimal:
        """What of it was used, in the unit of its price."""
        return Decimal(self.consumed(used)) / self.scale

    def price(self, prices: Prices) -> Decimal:
        """The stage's price of one."""
        found: Decimal = getattr(prices, self.id)
        return found


_INTEGRATION = ("Integration", "Other (Integration)")
_SECURITY = ("Security", "Other (Security)")
SKUS = (
    Sku(
        "million_requests",
        "Requests",
        _INTEGRATION,
        "Requests",
        lambda u: u.requests,
        "1000000 Requests",
        10**6,
    ),
    Sku("received_gigabyte", "Bytes received", _INTEGRATION, "B", lambda u: u.received, "GB", 10**9),
    Sku("sent_gigabyte", "Bytes sent", _INTEGRATION, "B", lambda u: u.sent, "GB", 10**9),
    Sku("million_events", "Events", _INTEGRATION, "Events", lambda u: u.events, "1000000 Events", 10**6),
    Sku(
        "million_encryptions",
        "Fields encrypted and decrypted",
        _SECURITY,
        "Operations",
        lambda u: u.encryptions,
        "1000000 Operations",
        10**6,
    ),
    Sku(
        "thousand_kms_calls",
        "Calls to the KMS",
        _SECURITY,
        "Requests",
        lambda u: u.kms_calls,
        "1000 Requests",
        1000,
    ),
    Sku(
        "stored_gigabyte_month",
        "Storage",
        ("Databases", "Other (Databases)"),
        "B-Hours",
        lambda u: u.stored_byte_hours,
        "GB-Months",
        10**9 * _MONTH_HOURS,
    ),
)
"""Everything that is measured and may have a price."""


@dataclass(frozen=True, slots=True)
class Bill:
    """A month's costs in cents.

    Attributes:
        own: by tenant and SKU, what the tenant's own use costs.
        shared: by tenant, its part of what is shared.
        whole: all of it.
    """

    own: Mapping[tuple[str, str], int]
    shared: Mapping[str, int]
    whole: int


def make_bill(used: Mapping[str, Used], tenants: Collection[str], prices: Prices) -> Bill:
    """Share out a month's costs.

    Args:
        used: by tenant; empty for what nobody in particular used.
        tenants: the stage's, who share what is shared even when they used nothing.
        prices: the stage's.
    """
    everybody = sorted({*tenants, *used} - {""})
    own: dict[tuple[str, str], int] = {}
    pool = shared = _round(prices.shared_month)
    whole = shared
    for sku in SKUS:
        amounts = {tenant: sku.quantity(each) for tenant, each in used.items()}
        cents = _round(sum(amounts.values(), Decimal(0)) * sku.price(prices))
        whole += cents
        for tenant, part in split(cents, amounts).items():
            if tenant and everybody:
                own[tenant, sku.id] = part
            else:
                pool += part
    costs = {tenant: sum(own.get((tenant, sku.id), 0) for sku in SKUS) for tenant in everybody}
    return Bill(own, split(pool, {tenant: Decimal(each) for tenant, each in costs.items()}), whole)


def split(cents: int, weights: Mapping[str, Decimal]) -> dict[str, int]:
    """Split ``cents`` by ``weights``, each part rounded down and what is left to the largest remainders.

    Equally when there is no weight. Names decide between equal remainders, so the same month gives the same
    parts; the sum is ``cents``, unless there is nobody.
    """
    if not weights:
        return {}
    whole = sum(weights.values(), Decimal(0))
    shares = weights if whole else dict.fromkeys(weights, Decimal(1))
    whole = whole or Decimal(len(weights))
    exact = {name: cents * weight / whole for name, weight in shares.items()}
    parts = {name: int(value) for name, value in exact.items()}
    left = cents - sum(parts.values())
    order = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in order[:left]:
        parts[name] += 1
    return parts


def _round(money: Decimal) -> int:
    return int((money * _CENTS).to_integral_value(ROUND_HALF_EVEN))
