"""One window of one target through both layers of the default detector, compiled."""
# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled, inlined
from detectors.lanes import exponentials, row_totals, weighted
from detectors.lanes import total as total_of
from detectors.normal import ppf
from detectors.sequential.categories import count_score, decode_bets, plug_in_shares
from detectors.sequential.chance import beyond, surprise_of
from detectors.sequential.rank_layer import (
    EVIDENCE_MAX,
    bet,
    bet_adaptively,
    bet_on_share,
    boost,
    in_reach,
    kept,
    rank_bin,
    staked,
)
from detectors.sequential.scores import fold_core, window_statistics
from detectors.sequential.target_work import fill_work, work_bets, work_rows, work_size
from detectors.sequential.tube import LAWS, plug_in
from detectors.sequential.tube_boost import REACH, tube_factor
from detectors.sequential.uniforms import uniform

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]

# Fields of `out`.
RANK, TUBE, LEADING, RANK_CROSSED, TUBE_CROSSED, FIRES, FIELDS = 0, 1, 2, 3, 4, 5, 6
# Fields of `clock`: windows judged, those at which the latches were set, the window start of the excursion, 1 = it is settled.
INDEX, RANK_LATCH, TUBE_LATCH, EXCURSION, SETTLED = 0, 1, 2, 3, 4
NEVER = -(1 << 62)
# Fields of an effect.
SHIFT, SIZE, FORM, SHARE, INSIDE, EFFECT_FIELDS = 0, 1, 2, 3, 4, 5
FORM_NONE, FORM_SHIFT, FORM_SCALE, FORM_SHARE = 0.0, 1.0, 2.0, 3.0

SEEN_CARRY = 1 << 16  # windows in one rank bin: more are counted in `seen_high`
GAIN_MAX = 60.0  # nats of a bet's running gain; so that it drains in time when an excursion ends
# An excursion is seen from here on, its start is settled when so much speaks for it, and it is over below the last.
GAIN_BEGINS, GAIN_SETTLES, GAIN_ENDS = 3.0, 8.0, 1.0
SIGMAS_SEEN = 2.0  # a change below this is not told
BETS_MAX = 64  # on one statistic


@compiled
def checked_total(counts: I64) -> int:
    """Sum of the counts, -1 if any is negative."""
    total = 0
    for c in counts:
        if c < 0:
            return -1
        total += c
    return total


@compiled
def statistics(
    core: F64, shares: I64, score: F64, nominal: F64, shape_scale: F64, share_p: F64, seed: np.uint64, out: F64, tie: F64
) -> None:  # fmt: skip
    """All statistics of one window and their tie-breaks: the five of the values (if core has bins), then one per share."""
    values = 0
    if len(core) > 0:
        window_statistics(core, score, nominal, shape_scale, out)
        values = 5
    total = int(total_of(core))
    for c in shares:
        total += c
    for j in range(values + len(shares)):
        tie[j] = uniform(seed, j)
    for i in range(len(shares)):
        j = values + i
        out[j] = count_score(shares[i], total, share_p[i], tie[j])


@compiled
def rank_room(bins: int, each: int) -> int:
    """What `rank_layer` writes into: numbers present, sums of each bet, one share's bets decoded, sums of the memories."""
    return bins + BETS_MAX + bins * each + BETS_MAX


@compiled
def rank_layer(
    values: F64, ties: F64, weight: float, order: F32, order_tie: F32, alpha: F64,
    bets: F64, bet_start: I64, share_bets: U8, known: F64, decay: F64, adaptive_share: float, thresholds: F64,
    evidence: F32, adaptive: F32, share_evidence: F32, seen: U16, seen_high: U16, recent: F32, room: F64, out: F64,
) -> None:  # fmt: skip
    """Move every statistic's bets on by one window; out[RANK] = largest evidence / threshold, out[LEADING] = whose.

    known F64[s, r + 1, M]: share_bets decoded, or empty; room F64[rank_room(...)] is written.
    """
    bins, each = len(alpha), share_bets.shape[2]
    one, last = np.uint16(1), np.uint16(SEEN_CARRY - 1)
    present, scratch = room[:bins], room[bins : bins + BETS_MAX]
    totals = room[bins + BETS_MAX + bins * each :]
    row_totals(recent, totals)
    best, leading, crossed = 0.0, 0, False
    value_statistics = len(bet_start) - 1 if bets.shape[0] > 0 else 0
    for j in range(len(thresholds)):
        k = rank_bin(values[j], ties[j], order[j], order_tie[j])
        lower = seen[j]
        for l in range(bins):
            present[l] = alpha[l] + float(np.int32(lower[l]))  # several at once, which of 64 bits they are not
        if len(seen_high) > 0:
            for l in range(bins):
                present[l] += SEEN_CARRY * float(seen_high[j, l])
        total = total_of(present)  # whole numbers: no order of their sum changes it
        if j < value_statistics:
            start, stop = bet_start[j], bet_start[j + 1]
            share, part = (1.0 - adaptive_share) / (stop - start), adaptive_share / len(decay)
            own, laid, memory = evidence[start:stop], bets[:, start:stop], totals[j * len(decay) :]
            before, raised = staked(weight, share, own, scratch), weight
            for i in range(len(decay)):
                before += part * (adaptive[j, i] + weight)
            if in_reach(before, thresholds[j]):  # else `boost` does nothing: spares its many arguments
                raised = boost(weight, present, laid, share, own, recent[j], part, adaptive[j], thresholds[j])
            found = bet(k, raised, present, total, laid, share, own, scratch)
            found += bet_adaptively(k, raised, present[k] / total, recent[j], memory, decay, part, adaptive[j])
        else:
            i = j - value_statistics
            if len(known) > 0:
                found = bet_on_share(k, weight, present, total, known[i], share_evidence[i], thresholds[j], scratch)
            else:
                decoded = room[bins + BETS_MAX : bins + BETS_MAX + bins * each].reshape(bins, each)
                decode_bets(share_bets[i], decoded)
                found = bet_on_share(k, weight, present, total, decoded, share_evidence[i], thresholds[j], scratch)
        if seen[j, k] == last:
            seen[j, k] = 0
            seen_high[j, k] += one
        else:
            seen[j, k] += one
        ratio = found / thresholds[j]
        if ratio > best:
            best, leading = ratio, j
        if ratio >= 1.0:  # each statistic resets itself
            crossed = True
            if j < value_statistics:
                evidence[bet_start[j] : bet_start[j + 1]] = 0.0
                adaptive[j] = 0.0
            else:
                share_evidence[j - value_statistics] = 0.0
    out[RANK] = best
    out[LEADING] = leading
    out[RANK_CROSSED] = 1.0 if crossed else 0.0


@compiled
def excursion(clock: I64, gain: float, gain_start: int) -> None:
    """Follow the leading bet's gain: the start is corrected once, when it is settled, and then stays."""
    if gain < GAIN_ENDS:
        clock[EXCURSION] = NEVER
        clock[SETTLED] = 0
    elif gain >= GAIN_SETTLES and clock[SETTLED] == 0:
        clock[EXCURSION] = gain_start
        clock[SETTLED] = 1
    elif gain >= GAIN_BEGINS and clock[EXCURSION] == NEVER:
        clock[EXCURSION] = gain_start


@compiled
def follow(gain: F32, gain_start: I64, exponents: F64, bet_weight: F64, start_ms: int) -> int:
    """Move the running gain F32[M] of every bet on by its exponent F64[M]; which one leads now. One without weight stands still."""
    for i in range(len(gain)):  # in two passes without branches: which begin is as likely as not
        begins = (gain[i] <= 0.0) & (bet_weight[i] > 0.0)
        gain_start[i] = start_ms if begins else gain_start[i]
    for i in range(len(gain)):
        now = min(max(gain[i], 0.0) + exponents[i], GAIN_MAX)
        gain[i] = now if bet_weight[i] > 0.0 else gain[i]
    leading, most = 0, gain[0]
    for i in range(1, len(gain)):
        leading = i if gain[i] > most else leading
        most = max(gain[i], most)
    return leading


@compiled
def tube_room(core: int, bets: int) -> int:
    """What `tube_layer` writes into: an exponent of each bet, then two numbers of each core bin, and in their place two of each bet."""
    return bets + 2 * max(core, bets)


@compiled
def tube_layer(
    core: F64, shares: I64, weight: float, start_ms: int, threshold: float, masses: F64, lo: F64, hi: F64, log_h: F32,
    share_in: F64, share_out: F64, share_masses: F64, share_lo: F64, share_hi: F64, bet_weight: F64,
    evidence: F32, gain: F32, gain_start: I64, recent: F32, clock: I64, room: F64, out: F64,
) -> None:  # fmt: skip
    """Move the tube's bets on by one window: fixed value targets, share targets, plug-in, in this order.

    room F64[tube_room(...)] is written.
    """
    fixed, per_share = 0, share_in.shape[1]
    exponents, rest = room[: len(evidence)], room[len(evidence) :]
    if len(core) > 0:
        fixed = LAWS
        weighted(core, log_h, exponents)
    total = total_of(core)
    for c in shares:
        total += c
    at = fixed
    for s in range(len(shares)):
        for i in range(per_share):
            exponents[at] = shares[s] * share_in[s, i] + (total - shares[s]) * share_out[s, i]
            at += 1
    if len(core) > 0:
        exponents[at] = plug_in(core, masses, lo, hi, recent, rest)
    else:
        exponents[at] = plug_in_shares(shares, share_masses, share_lo, share_hi, recent)
    stakes, growth = rest[: len(evidence)], rest[len(evidence) : 2 * len(evidence)]
    for i in range(len(evidence)):
        stakes[i] = bet_weight[i] * (evidence[i] + weight)
        growth[i] = exponents[i]
    raised, before = 1.0, total_of(stakes)
    if before * REACH >= threshold and before < threshold:
        raised = tube_factor(
            core,
            shares,
            threshold,
            lo,
            hi,
            log_h.astype(np.float64),
            share_in,
            share_out,
            share_lo,
            share_hi,
            stakes,
            exponents,
        )
    exponentials(growth)
    for i in range(len(evidence)):
        grown = raised * min((evidence[i] + weight) * growth[i], EVIDENCE_MAX)
        growth[i] = bet_weight[i] * grown
        evidence[i] = kept(grown) if bet_weight[i] > 0.0 else evidence[i]
    statistic = total_of(growth)
    leading = follow(gain, gain_start, exponents, bet_weight, start_ms)
    excursion(clock, gain[leading], gain_start[leading])
    out[TUBE] = statistic / threshold
    crossed = statistic >= threshold
    if crossed:
        evidence[:] = 0.0
    out[TUBE_CROSSED] = 1.0 if crossed else 0.0


@compiled
def latch(clock: I64, expiry: int, out: F64) -> None:
    """Set and expire the latches; out[FIRES] when both are set, and then both are cleared."""
    now = clock[INDEX]
    if out[RANK_CROSSED] > 0.0:
        clock[RANK_LATCH] = now
    if out[TUBE_CROSSED] > 0.0:
        clock[TUBE_LATCH] = now
    for which in (RANK_LATCH, TUBE_LATCH):
        if clock[which] != NEVER and now - clock[which] >= expiry:
            clock[which] = NEVER
    out[FIRES] = 0.0
    if clock[RANK_LATCH] != NEVER and clock[TUBE_LATCH] != NEVER:
        out[FIRES] = 1.0
        clock[RANK_LATCH] = NEVER
        clock[TUBE_LATCH] = NEVER
    clock[INDEX] = now + 1


@compiled
def effect(
    core: F64, shares: I64, score: F64, score_mean: F64, lo: F64, hi: F64,
    share_masses: F64, share_lo: F64, share_hi: F64, out: F64,
) -> None:  # fmt: skip
    """How far the counts are from the reference: out F64[EFFECT_FIELDS]. The most significant of location, scale, any share."""
    valid = total_of(core)
    total = int(valid)
    for c in shares:
        total += c
    location, scale = 0.0, 0.0
    if valid > 0.0:
        weighted(core, score, out)  # exact: scores are rounded to what such sums hold
        location, scale = out[0], out[1]
    out[:] = 0.0
    out[INSIDE] = 1.0
    best = SIGMAS_SEEN
    if valid > 0.0:
        below = 0.0
        for k in range(len(core) - 1):
            below += core[k]
            # inside of the gate, as by far the most are: spares the quotient and the root
            if (below < lo[k] * valid or below > hi[k] * valid) and beyond(below / valid, int(valid), lo[k], hi[k]):
                out[INSIDE] = 0.0
                break  # one is enough
        location = location / valid - score_mean[0]
        scale = scale / valid - score_mean[1] - location * location
        out[SHIFT] = location
        out[SIZE] = abs(location)
        surprise = abs(location) * math.sqrt(valid)
        if surprise > best:
            best = surprise
            out[FORM] = FORM_SHIFT
        surprise = abs(scale) * math.sqrt(0.5 * valid)
        if surprise > best:
            best = surprise
            out[FORM] = FORM_SCALE
            out[SIZE] = abs(math.sqrt(max(1.0 + scale, 0.0)) - 1.0)
            out[SHIFT] = math.sqrt(max(1.0 + scale, 0.0)) - 1.0
    for s in range(len(shares)):
        if total == 0:
            break
        if out[INSIDE] > 0.0 and beyond(shares[s] / total, total, share_lo[s], share_hi[s]):
            out[INSIDE] = 0.0
        surprise = abs(surprise_of(shares[s], total, share_masses[s]))
        if surprise > best:
            best = surprise
            now = min(max(shares[s] / total, 0.5 / total), 1.0 - 0.5 / total)
            out[FORM] = FORM_SHARE
            out[SHARE] = s
            out[SHIFT] = ppf(now) - ppf(share_masses[s])
            out[SIZE] = abs(out[SHIFT])


@compiled
def room_of(core: int, statistics: int, ranks: int, each: int, bets: int) -> int:
    """How many numbers `decide` writes on its way: values and ties, then one layer after the other."""
    return 2 * statistics + max(rank_room(ranks, each), tube_room(core, bets))


@inlined
def decide(
    counts: I64, seed: np.uint64, weight: float, start_ms: int, expiry: int, first: int, rows: F64, log_h: F32, core: F64, room: F64,
    score: F64, score_mean: F64, share_p: F64,
    order: F32, order_tie: F32, alpha: F64, bets: F64, bet_start: I64, share_bets: U8, known: F64, decay: F64,
    adaptive_share: float, thresholds: F64,
    threshold: float, share_in: F64, share_out: F64, share_masses: F64, share_lo: F64, share_hi: F64, bet_weight: F64,
    clock: I64, evidence: F32, adaptive: F32, share_evidence: F32, seen: U16, seen_high: U16, recent: F32,
    tube: F32, gain: F32, gain_start: I64, plug: F32, out: F64, told: F64,
) -> None:  # fmt: skip
    """`judge` with what is filled of its work, `work_rows` and `work_bets`. core F64[K] and room F64[room_of(...)] are
    written.
    """
    core_bins = len(core)
    shares = counts[len(counts) - len(share_p) :]
    if core_bins > 0:
        fold_core(counts, first, core_bins, len(counts) - len(share_p), core)
    masses, lo, hi, nominal, shape_scale = rows[0], rows[1], rows[2], rows[3], rows[4]
    count = len(thresholds)
    values, ties, rest = room[:count], room[count : 2 * count], room[2 * count :]
    statistics(core, shares, score, nominal, shape_scale, share_p, seed, values, ties)
    rank_layer(
        values, ties, weight, order, order_tie, alpha, bets, bet_start, share_bets, known, decay, adaptive_share,
        thresholds, evidence, adaptive, share_evidence, seen, seen_high, recent, rest, out,
    )  # fmt: skip
    tube_layer(
        core, shares, weight, start_ms, threshold, masses, lo, hi, log_h, share_in, share_out, share_masses, share_lo,
        share_hi, bet_weight, tube, gain, gain_start, plug, clock, rest, out,
    )  # fmt: skip
    latch(clock, expiry, out)
    effect(core, shares, score, score_mean, lo, hi, share_masses, share_lo, share_hi, told)


@compiled
def judge(
    counts: I64, seed: np.uint64, weight: float, start_ms: int, expiry: int, first: int, core_bins: int,
    score: F64, chose: I64, score_mean: F64, share_p: F64,
    order: F32, order_tie: F32, alpha: F64, bets: F64, bet_start: I64, share_bets: U8, decay: F64, adaptive_share: float,
    thresholds: F64,
    threshold: float, tolerance: float, reference: I64, share_in: F64, share_out: F64, share_masses: F64,
    share_lo: F64, share_hi: F64, bet_weight: F64,
    clock: I64, evidence: F32, adaptive: F32, share_evidence: F32, seen: U16, seen_high: U16, recent: F32,
    tube: F32, gain: F32, gain_start: I64, plug: F32, out: F64, told: F64,
) -> None:  # fmt: skip
    """Both layers, the latches, and the effect of one window."""
    work = np.empty(work_size(core_bins))
    fill_work(chose, reference, first, core_bins, len(counts) - len(share_p), tolerance, work)
    room = np.empty(room_of(core_bins, len(thresholds), len(alpha), share_bets.shape[2], len(bet_weight)))
    decide(
        counts, seed, weight, start_ms, expiry, first, work_rows(work, core_bins), work_bets(work, core_bins),
        np.empty(core_bins), room, score,
        score_mean, share_p,
        order, order_tie, alpha, bets, bet_start, share_bets, np.empty((0, 0, 0)), decay, adaptive_share, thresholds,
        threshold, share_in, share_out, share_masses, share_lo, share_hi, bet_weight,
        clock, evidence, adaptive, share_evidence, seen, seen_high, recent, tube, gain, gain_start, plug, out, told,
    )  # fmt: skip
