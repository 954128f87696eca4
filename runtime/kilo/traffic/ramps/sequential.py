"""Sequential tests: evidence that stays valid however often it is looked at.

Both tests here are mixtures of likelihood ratios, which are martingales of mean 1 while the null hypothesis
holds; by Ville's inequality one ever exceeds ``1 / alpha`` with a probability of at most ``alpha``, no matter
when, how often or why somebody looks. The idea is Robbins' (*Statistical methods related to the law of the
iterated logarithm*, Ann. Math. Statist. 41, 1970); Johari, Koomen, Pekelis and Walsh made it the mixture
sequential probability ratio test of online experiments (*Always valid inference*, Operations Research 70,
2022, https://arxiv.org/abs/1512.04922). For rare events their normal approximation is poor, so counts are
compared exactly, as Lindon and Malek do (*Anytime-valid inference for multinomial count data*, NeurIPS 2022,
https://arxiv.org/abs/2011.03567): given that a request failed, it was the next version's with a probability
that is that version's share of the requests, if both fail alike. Each interval between two looks has a share
of its own, so a share that changes in time, or load that comes and goes with failures of both, is no proof.

Failures that come in bunches (one pod dies) are not independent. The gate asks for a burning budget besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log, log1p

TIMES_WORSE = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0)
"""The alternatives, each with the same prior weight: how many times as often the next version fails."""
_LARGEST = 700.0
"""The exponent at which a double's end is near."""


def evidence_of_worse(intervals: Iterable[tuple[int, int, int, int]]) -> float:
    """How many times likelier the counts are if the next version fails more often than the stable one.

    Args:
        intervals: for each interval the next version's requests and bad ones, and the stable version's.

    Returns:
        The mixture likelihood ratio, 1 where nothing was seen.
    """
    # Of what failed in one interval: how many there, how many here, and the share of requests there.
    seen = [
        (bad, others, requests / (requests + stable))
        for requests, bad, stable, others in intervals
        if requests > 0 and stable > 0 and bad + others > 0
    ]
    return _mixture(
        [
            sum(bad * log(times) - (bad + others) * log1p(share * (times - 1)) for bad, others, share in seen)
            for times in TIMES_WORSE
        ]
    )


def evidence_above(requests: int, bad: int, permitted: float) -> float:
    """How many times likelier the counts are if more than ``permitted`` of the requests are bad.

    Args:
        requests: how many there were.
        bad: how many of them were bad.
        permitted: the share of bad ones that an objective permits.

    Returns:
        The mixture likelihood ratio, 1 where nothing was seen.
    """
    good = max(requests - bad, 0)
    shares = sorted({min(permitted * times, 0.999) for times in TIMES_WORSE})
    return _mixture(
        [
            bad * log(share / permitted) + good * (log1p(-share) - log1p(-permitted))
            for share in shares
            if share > permitted
        ]
    )


def _mixture(logarithms: Sequence[float]) -> float:
    if not logarithms:
        return 1.0
    return sum(exp(min(each, _LARGEST)) for each in logarithms) / len(logarithms)
