"""The compiled detector against plain numpy, written from the formulas of its design."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, multinomial, norm

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.binning import Kind
from detectors.reference import fold
from detectors.sequential.categories import BET_VALUES, project_shares, share_tube_bets
from detectors.sequential.default_tables import Prepared
from detectors.sequential.rank_layer import BETS
from detectors.sequential.taut_string import taut_string
from detectors.sequential.tube import LAW_WEIGHTS, laws
from detectors.sequential.uniforms import uniform, window_seed

V = (0.35, 0.22, 0.14, 0.14, 0.15)
BET_PARTS = (  # of a share's tube bets: usual, rare, and below one in 10,000
    (3.5, 0.6, 1.5, 0.4, 0.7, 0.2, 0.5, 0.1, 0.3, 0.1, 0.1),
    (0.3, 0.05, 0.7, 0.1, 2, 0.1, 3.2, 0.1, 1.2, 0.1, 0.3),
    (0.1, 0.5, 1, 1.5, 1.5, 1.5, 1.5, 1.2, 0.7, 0.3, 0.2),
)


def portions(shares: np.ndarray, unseen: float, missing: float) -> list[float]:
    """Of categories, other, unseen, missing, invalid: without any other known ones."""
    p = np.clip(shares[:-4], 0.01, 0.99)
    part = np.sqrt(p * (1 - p)) / norm.pdf(norm.ppf(p))
    rest = 1 - unseen - missing - 2 * 0.005
    return [*(rest * part / part.sum()), 0.005, unseen, missing, 0.005]


class Twin:
    """Both layers of a numeric or categorical target, one window after the other, unoptimised."""

    def __init__(self, prepared: Prepared) -> None:
        target, self.prepared, self.target = prepared.target, prepared, prepared.target
        self.numeric = target.binning.kind is Kind.NUMERIC
        first, rest = fold(target.binning, target.first), fold(target.binning, target.counts)
        self.k = len(first) - 2 if self.numeric else 0
        m = target.windows
        edges = np.concatenate([[0], target.rank, [m + 1]])
        self.alpha = np.diff(edges).astype(float)
        self.null = self.alpha / (m + 1)
        rank_probit = norm.ppf(target.rank / (m + 1))
        self.bets = []
        if self.numeric:
            p = (first[: self.k] + 0.5) / (first[: self.k] + 0.5).sum()
            f = np.cumsum(p)[:-1]
            z = np.concatenate([[-np.inf], norm.ppf(f), [np.inf]])
            zphi = np.where(np.isfinite(z), z, 0) * norm.pdf(z)
            scores = [-np.diff(norm.pdf(z)) / p, -np.diff(zphi) / p]
            e = np.concatenate([[0], f, [1]])
            for upper in (True, False):
                t = np.mean(
                    [
                        np.diff(np.clip((e - c) / (1 - c) if upper else e / (1 - c), 0, 1))
                        for c in (0.98, 0.99, 0.995, 0.999, 0.9998)
                    ],
                    axis=0,
                )
                scores.append(np.log(1 + 0.02 * (t / p - 1)))
            self.scores, self.f = np.array(scores), f
            for bets in BETS:
                masses = [(x, np.diff(np.concatenate([[0], norm.cdf(rank_probit - s), [1]]))) for s, x in bets]
                self.bets.append([((1 - x) * self.null + x * mass) / self.null for x, mass in masses])
        self.share_p = (first[-2:] + 0.5) / (first.sum() + 1) if self.numeric else (first + 0.5) / (first + 0.5).sum()
        self.share_bets = np.moveaxis(BET_VALUES[prepared.rank[5]], 2, 1)
        self.statistics = len(self.bets) + len(self.share_p)
        self.v = [0.83 * v for v in V] + [0.15, 0.02] if self.numeric else portions(self.share_p, 0.43, 0.30)
        self.evidence = [np.zeros(len(b) + 2) for b in self.bets] + [np.zeros(12) for _ in self.share_p]
        self.seen = np.zeros((self.statistics, len(self.alpha)))
        self.recent = np.zeros((len(self.bets), 2, len(self.alpha)))
        self.recent_total = np.zeros((len(self.bets), 2))
        self.boosts = self.tube_boosts = 0
        self._tube(rest)

    def _tube(self, rest: np.ndarray) -> None:
        tau = self.prepared.settings.tolerance
        self.laws, weights = [], []
        if self.numeric:
            self.p0 = (rest[: self.k] + 0.5) / (rest[: self.k] + 0.5).sum()
            probit = norm.ppf(np.cumsum(self.p0)[:-1])
            self.lo, self.hi = (np.append(norm.cdf(probit + s * tau), 1.0) for s in (-1, 1))
            for law, weight in zip(laws(self.p0), LAW_WEIGHTS, strict=True):
                self.laws.append(self._nearest(np.maximum(law, 1e-15)))
                weights.append(0.83 * weight)
            masses = (rest[-2:] + 0.5) / (rest.sum() + 1)
            share_weights, plug = [0.15, 0.02], 0.83 * 0.08
        else:
            masses = (rest + 0.5) / (rest + 0.5).sum()
            share_weights, plug = [0.96 * v for v in portions(masses, 0.30, 0.27)], 0.04
            self.p0 = masses
        self.share_lo, self.share_hi = (norm.cdf(norm.ppf(masses) + s * tau) for s in (-1, 1))
        self.share_tables = [share_tube_bets(float(p), tau) for p in masses]
        for w, p, (inside, _) in zip(share_weights, masses, self.share_tables, strict=True):
            wanted = BET_PARTS[0 if p >= 0.01 else 1 if p >= 1e-4 else 2]
            weights += [0.0 if abs(b) < 1e-12 else w * x / sum(wanted) for b, x in zip(inside, wanted, strict=True)]
        self.weights = np.array([*weights, plug])
        self.weights /= self.weights.sum()
        self.t = np.zeros(len(self.weights))
        self.ew, self.ew_total = np.zeros(len(self.p0)), 0.0

    def _nearest(self, law: np.ndarray) -> np.ndarray:
        log_h = np.empty(len(law))
        taut_string(law, self.lo, self.hi, log_h)
        return log_h

    def _values(self, core: np.ndarray) -> list[float]:
        b = core.sum()
        if not self.numeric or b == 0:
            return [0.0] * len(self.bets)
        z, z2, up, low = (self.scores @ core) / b * math.sqrt(b)
        keep = (self.f >= 0.01) & (self.f <= 0.99)
        distance = np.abs(np.cumsum(core)[:-1] / b - self.f) / np.sqrt(self.f * (1 - self.f))
        return [z, z2, up, low, distance[keep].max(initial=0.0) * math.sqrt(b)]

    def update(self, counts: np.ndarray, weight: float, start_ms: int) -> tuple[float, float, bool, bool]:
        folded = fold(self.target.binning, counts)
        core, shares, total = folded[: self.k], folded[self.k :], folded.sum()
        seed = np.uint64(window_seed(self.prepared.prefix, start_ms))
        ties = [uniform(seed, j) for j in range(self.statistics)]
        values = self._values(core)
        for i, (c, p) in enumerate(zip(shares, self.share_p, strict=True)):
            u = ties[len(self.bets) + i]
            value = binom.cdf(c - 1, total, p) + u * binom.pmf(c, total, p)
            upper = binom.sf(c, total, p) + (1 - u) * binom.pmf(c, total, p)
            values.append(math.log(2 * value) if value < 0.5 else -math.log(2 * upper))
        best, rank_crossed = 0.0, False
        for j, (x, u) in enumerate(zip(values, ties, strict=True)):
            # Values to 1e-6: the twin's rounding must not decide a tie that the kernel breaks by u.
            order, tie = self.target.order[j], self.target.tie[j]
            close = np.abs(order - x) < 2e-6
            k = int(np.sum((order < x) & ~close)) + int(np.sum(close & (tie < u)))
            best = max(best, self._rank(j, k, weight))
            rank_crossed |= self.crossed
        tube = self._tube_step(core, shares, total, weight)
        return best, tube[0], rank_crossed, tube[1]

    def _rank(self, j: int, k: int, weight: float) -> float:
        present = self.alpha + self.seen[j]
        p = present / present.sum()
        fixed = self.bets[j] if j < len(self.bets) else self.share_bets[j - len(self.bets)]
        factors = [h / (p @ h) for h in fixed]
        share = [1 / len(fixed)] * len(fixed)
        if j < len(self.bets):
            share = [0.92 / len(fixed)] * len(fixed) + [0.04, 0.04]
            for i, decay in enumerate((0.9, 0.98)):
                factors.append((self.recent[j, i] + 30 * p) / (self.recent_total[j, i] + 30) / p)
                self.recent[j, i] *= decay
                self.recent[j, i, k] += 1
                self.recent_total[j, i] = self.recent_total[j, i] * decay + 1
        s = self.prepared.settings
        staked = self.evidence[j] + weight
        threshold = s.budget_ms * s.cells / self.v[j]
        raised = self._boost(np.dot(share, staked), p, np.array(factors).T @ (share * staked), threshold)
        self.evidence[j] = raised * staked * np.array(factors)[:, k]
        self.seen[j, k] += 1
        ratio = float(np.dot(share, self.evidence[j])) * self.v[j] / (s.budget_ms * s.cells)
        self.crossed = ratio >= 1
        if self.crossed:
            self.evidence[j][:] = 0
        return ratio

    def _boost(self, before: float, p: np.ndarray, after: np.ndarray, threshold: float) -> float:
        """The factor that makes E[min(b after, threshold)] = before, by halving; 1 far from the threshold."""
        if not threshold / 1024 <= before < threshold or after.max() <= threshold:
            return 1.0
        self.boosts += 1
        low, high = 1.0, threshold / after.min()
        for _ in range(200):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if p @ np.minimum(middle * after, threshold) <= before else (low, middle)
        return low

    def _tube_step(self, core: np.ndarray, shares: np.ndarray, total: int, weight: float) -> tuple[float, bool]:
        exponents = [float(core @ log_h) for log_h in self.laws]
        for c, (inside, outside) in zip(shares, self.share_tables, strict=True):
            exponents += list(c * inside + (total - c) * outside)
        counts = core if self.numeric else shares
        plug = 0.0
        if self.ew_total > 0:
            q = (self.ew + 200 * self.p0) / (self.ew_total + 200)
            if self.numeric:
                plug = float(counts @ self._nearest(q))
            else:
                p = np.empty(len(q))
                project_shares(q, self.share_lo, self.share_hi, p)
                plug = float(counts @ np.log(q / p))
        self.ew, self.ew_total = 0.99 * self.ew + counts, 0.99 * self.ew_total + counts.sum()
        s = self.prepared.settings
        raised = self._raised(self.weights * (self.t + weight), np.array(exponents), core, total, s.budget_ms * s.cells)
        self.t = raised * (self.t + weight) * np.exp([*exponents, plug])
        ratio = float(self.weights @ self.t) / (s.budget_ms * s.cells)
        if ratio >= 1:
            self.t[:] = 0
        return ratio, ratio >= 1

    def _raised(
        self, stakes: np.ndarray, exponents: np.ndarray, core: np.ndarray, total: int, threshold: float
    ) -> float:
        """The factor of the tube: what is beyond the threshold, under the largest law of the group of bets that leads."""
        if not threshold / 64 <= stakes.sum() < threshold:
            return 1.0
        lead, fixed = int(np.argmax(stakes[:-1])), len(self.laws)
        if lead < fixed:
            events, own, h = int(core.sum()), slice(0, fixed), np.exp(self.laws)
            stakes = np.concatenate([stakes[:fixed], stakes[fixed:-1] * np.exp(exponents[fixed:]), stakes[-1:]])
            lo, hi = self.lo[:-1], self.hi[:-1]
        else:
            s = (lead - fixed) // 11
            events, own = int(total), slice(fixed + 11 * s, fixed + 11 * s + 11)
            h = np.exp(np.stack([self.share_tables[s][1], self.share_tables[s][0]], axis=1))
            lo, hi = np.array([1 - self.share_hi[s]]), np.array([1 - self.share_lo[s]])
        before, bet = stakes.sum(), h[lead - own.start]
        if before >= threshold or not 0 < events <= 1000:
            return 1.0
        ascending = bet[-1] >= bet[0]
        order = sorted(range(len(bet)), key=lambda k: (bet[k], k if ascending else -k))
        beyond = []
        for r in range(len(order)):
            inside = np.isin(np.arange(len(order)), order[r:]).astype(float)
            steps = inside[:-1] - inside[1:]
            beyond.append(inside[-1] + np.sum(np.where(steps > 0, hi, lo) * steps))
        p = -np.diff(np.append(np.minimum.accumulate(np.minimum(beyond, 1.0)), 0.0))
        splits = [
            [range(a), range(a, b), range(b, len(order))][: 2 + (b < len(order))]
            for a in range(1, len(order))
            for b in (range(a + 1, len(order) + 1) if events <= 45 else [len(order)])
        ]
        splits = [split for split in splits if all(p[part].sum() > 0 for part in split)]
        along = h[:, order]
        split = max(
            splits,
            key=lambda parts: sum((p[part] @ along[lead - own.start][part]) ** 2 / p[part].sum() for part in parts),
        )
        level = [p[part].sum() for part in split]
        grows = np.all(np.diff(along, axis=1) >= 0, axis=1) & (stakes[own] > 0)
        means = np.array([along[grows][:, part] @ p[part] / p[part].sum() for part in split])
        ways = [c for c in itertools.product(range(events + 1), repeat=len(split) - 1) if sum(c) <= events]
        counts = np.array([[events - sum(c), *c] for c in ways])
        chance = multinomial.pmf(counts, events, np.array(level) / sum(level))
        after = np.exp(counts @ np.log(means)) @ stakes[own][grows]
        rest = before - stakes[own][grows].sum()
        if after.max() + rest <= threshold:
            return 1.0
        self.tube_boosts += 1
        low, high = 1.0, 1e6
        for _ in range(200):
            middle = 0.5 * (low + high)
            enough = chance @ np.minimum(middle * after, threshold) + middle * rest <= before
            low, high = (middle, high) if enough else (low, middle)
        return low


@pytest.mark.parametrize("law", ["normal", "lognormal", "poisson", "holes", "categories"])
def test_the_kernel_is_its_twin(law: str) -> None:
    prepared, state = kit.ready(kit.profile(law, 20_000), budget=2e4, tolerance=0.03, cells=2)
    twin = Twin(prepared)
    g = np.random.default_rng(3)
    changed = kit.DRAWS["rare"](g, 1500) if law == "categories" else kit.DRAWS["normal"](g, 1500) + 1
    slight = kit.DRAWS[law](g, 1500)  # and one that takes the tube some windows: a tenth of the values
    slight[::10] = changed[::10]
    values = np.concatenate([kit.DRAWS[law](g, 1500), changed, slight])
    verdicts = kit.run(prepared, state, kit.windows(prepared.target, values))
    crossings = 0
    for i, (row, verdict) in enumerate(zip(kit.windows(prepared.target, values), verdicts, strict=True)):
        rank, tube, rank_crossed, tube_crossed = twin.update(row, float(row.sum()), i * 1000)
        # the kernel keeps evidence in float32, rounded down: 1e-7 of a decade a window, never above the twin's
        for found, exact in ((verdict.rank_log10, rank), (verdict.tube_log10, tube)):
            lost = math.log10(exact) + verdict.threshold_log10 - found
            assert -1e-5 < lost < 1e-4
        assert (verdict.rank_crossed, verdict.tube_crossed) == (rank_crossed, tube_crossed)
        crossings += rank_crossed + tube_crossed
    assert crossings > 3
    assert twin.boosts > 3
    assert twin.tube_boosts > 3
