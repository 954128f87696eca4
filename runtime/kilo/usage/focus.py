"""A month's costs as FOCUS rows (FinOps Open Cost and Usage Specification, version 1.2).

https://focus.finops.org/focus-specification/v1-2/. The stage is the billing account, a tenant a sub account.
``BilledCost`` and ``EffectiveCost`` are in cents and sum to the whole; ``ListCost`` and ``ContractedCost``
are price times quantity to the last digit. Left out: columns of what the platform does not sell (commitments,
reservations, regions), which the specification leaves out then too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from kilo.usage.costs import SKUS, Bill
from kilo.usage.report import Used
from kilo.usage.settings import UsageSettings

_PROVIDER = "Kilo"
COLUMNS: tuple[tuple[str, type], ...] = (
    ("BilledCost", Decimal),
    ("BillingAccountId", str),
    ("BillingAccountName", str),
    ("BillingAccountType", str),
    ("BillingCurrency", str),
    ("BillingPeriodEnd", datetime),
    ("BillingPeriodStart", datetime),
    ("ChargeCategory", str),
    ("ChargeClass", str),
    ("ChargeDescription", str),
    ("ChargeFrequency", str),
    ("ChargePeriodEnd", datetime),
    ("ChargePeriodStart", datetime),
    ("ConsumedQuantity", Decimal),
    ("ConsumedUnit", str),
    ("ContractedCost", Decimal),
    ("ContractedUnitPrice", Decimal),
    ("EffectiveCost", Decimal),
    ("InvoiceIssuerName", str),
    ("ListCost", Decimal),
    ("ListUnitPrice", Decimal),
    ("PricingCategory", str),
    ("PricingQuantity", Decimal),
    ("PricingUnit", str),
    ("ProviderName", str),
    ("PublisherName", str),
    ("ServiceCategory", str),
    ("ServiceName", str),
    ("ServiceSubcategory", str),
    ("SkuId", str),
    ("SkuMeter", str),
    ("SkuPriceId", str),
    ("SubAccountId", str),
    ("SubAccountName", str),
    ("SubAccountType", str),
)


def month_bounds(month: date) -> tuple[datetime, datetime]:
    """A month's first moment and the next one's, in UTC."""
    begins = datetime(month.year, month.month, 1, tzinfo=UTC)
    ends = begins.replace(year=begins.year + begins.month // 12, month=begins.month % 12 + 1)
    return begins, ends


def focus_rows(
    stage: str, month: date, used: Mapping[str, Used], bill: Bill, settings: UsageSettings
) -> list[list[Any]]:
    """The rows of :data:`COLUMNS`: for each tenant one of each thing it used, and its shared part."""
    begins, ends = month_bounds(month)
    common = {
        "BillingAccountId": stage,
        "BillingAccountName": f"Kilo {stage}",
        "BillingAccountType": "Stage",
        "BillingCurrency": settings.currency,
        "BillingPeriodEnd": ends,
        "BillingPeriodStart": begins,
        "ChargePeriodEnd": ends,
        "ChargePeriodStart": begins,
        "InvoiceIssuerName": _PROVIDER,
        "PricingCategory": "Standard",
        "ProviderName": _PROVIDER,
        "PublisherName": _PROVIDER,
        "SubAccountType": "Tenant",
    }
    rows: list[dict[str, Any]] = []
    for tenant in sorted({*bill.shared, *(tenant for tenant, _ in bill.own)}):
        account = {**common, "SubAccountId": tenant, "SubAccountName": tenant}
        for sku in SKUS:
            use = used.get(tenant, Used())
            if not sku.consumed(use):
                continue
            price, quantity = sku.price(settings.prices), sku.quantity(use)
            rows.append(
                {
                    **account,
                    **_costs(bill.own.get((tenant, sku.id), 0), price, quantity),
                    "ChargeCategory": "Usage",
                    "ChargeDescription": f"{sku.meter} of {tenant}",
                    "ChargeFrequency": "Usage-Based",
                    "ConsumedQuantity": Decimal(sku.consumed(use)),
                    "ConsumedUnit": sku.consumed_unit,
                    "PricingUnit": sku.pricing_unit,
                    "ServiceCategory": sku.category[0],
                    "ServiceName": "Kilo events",
                    "ServiceSubcategory": sku.category[1],
                    "SkuId": sku.id,
                    "SkuMeter": sku.meter,
                    "SkuPriceId": f"{sku.id}/{settings.currency}",
                }
            )
        if part := bill.shared.get(tenant, 0):
            rows.append(
                {
                    **account,
                    **_costs(part, Decimal(part) / 100, Decimal(1)),
                    "ChargeCategory": "Purchase",
                    "ChargeDescription": f"{tenant}'s part of what the stage costs whoever uses it",
                    "ChargeFrequency": "Recurring",
                    "PricingUnit": "Months",
                    "ServiceCategory": "Management and Governance",
                    "ServiceName": "Kilo stage",
                    "ServiceSubcategory": "Other (Management and Governance)",
                    "SkuId": "shared_month",
                    "SkuMeter": "Shared costs",
                    "SkuPriceId": f"shared_month/{settings.currency}",
                }
            )
    return [[row.get(name) for name, _ in COLUMNS] for row in rows]


def _costs(cents: int, price: Decimal, quantity: Decimal) -> dict[str, Decimal]:
    billed, listed = Decimal(cents) / 100, price * quantity
    return {
        "BilledCost": billed,
        "EffectiveCost": billed,
        "ContractedCost": listed,
        "ListCost": listed,
        "ContractedUnitPrice": price,
        "ListUnitPrice": price,
        "PricingQuantity": quantity,
    }
