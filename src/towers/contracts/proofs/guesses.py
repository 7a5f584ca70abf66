"""Conditions under which a module may hold, guessed from the table of real runs: they are still to be proven."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, islice, product
from math import gcd, lcm, prod
from typing import Any, cast

import sympy
from torch.utils._sympy.functions import PythonMod

from towers.contracts.expressions import conditions as read_conditions
from towers.contracts.proofs.divide import divide
from towers.contracts.proofs.explore import BEYOND, Coverage
from towers.contracts.proofs.ranges import Span, Spans
from towers.contracts.proofs.reality import RealityCheck, holds_at
from towers.contracts.proofs.relations import negation, some_sizes, truth, turned, usable
from towers.contracts.proofs.symbolic_inputs import Case
from towers.contracts.proofs.symbolic_size import spelled
from towers.contracts.proofs.trials import Trial
from towers.contracts.proofs.verdicts import Guess, as_equalities

LARGEST_NUMBER, MOST_NUMBERS = 300, 24
"""Of the numbers at which questions change their answers, those that are tried with real tensors."""

MOST_TIMES = 4
"""The largest factor between two axes."""

MOST_TOLD = 6
"""Of the questions on several axes that runs which fail had, those whose other answer is looked at."""

MOST_ENDS = 3
"""Of the sizes of an axis at which conditions change, those that are tried."""

MOST_CHALLENGES = 3
"""How often a guess that a further run refutes is made again."""


def supposed(
    check: RealityCheck, coverage: Coverage, table: Sequence[Trial], told: Sequence[Guess]
) -> tuple[Sequence[Trial], list[Guess]]:
    """The table with more runs, and the conditions that hold where the runs passed and nowhere else.

    They are those that the symbolic runs told, some on single axes, some on several with these, and some between two.
    Bounds are sharpened by more runs, and remainders are tried at the numbers between.
    """
    case, whole = coverage.case, coverage.whole
    if {trial.error is None for trial in table} != {True, False}:
        return table, []
    table = check.around(case, table)
    table = check.further(case, table, _beside_few(table, whole), check.share())
    guesses: list[Guess] = []
    alone: list[str] = []
    for _ in range(MOST_CHALLENGES):
        alone = _on_one_axis(check, case, table, whole)
        guesses = [*told, *_few(table, whole), *([_all_of(alone)] if alone else [])]
        guesses += _on_several(check, case, table, alone)
        count = len(table)
        wanted = [*_challenges(table, alone), *_beyond(table, alone, _relations_told(coverage), whole)]
        table = check.further(case, table, wanted, check.share())
        if all(_true_of(alone, trial) for trial in table[count:]):
            break
    names = [name for name, span in whole.items() if not span.single]
    guesses += _between(table, names)  # the plainest first: what takes longer to prove may be another word for it
    guesses += _with_relations(table, alone, _relations_told(coverage), list(whole))
    guesses += _products_divided(coverage, table, alone, names)
    table = check.further(case, table, _divisors_left(table, whole), check.share())
    guesses += _divisors(table, whole)
    if not any(is_exact(each, table) for each in guesses):
        guesses += _or_one(check, case, table, whole)
    return table, [each for at, each in enumerate(guesses) if each not in guesses[:at] and is_exact(each, table)]


def is_exact(guess: Guess, table: Sequence[Trial]) -> bool:
    """Whether a condition holds where the runs passed and nowhere else."""
    return all(holds_at(guess.texts, one.sizes) == (one.error is None) for one in table)


def at_ends(texts: Sequence[str], whole: Spans) -> list[dict[str, int]]:
    """Sizes on both sides of where conditions on several axes change, along each axis: few usual sizes lie there.

    The other axes have their smallest size, or one of them the largest or the middle one where the conditions hold.
    """
    spans = {name: span for name, span in whole.items() if not span.single}
    least = {name: span.first for name, span in whole.items()}
    if sum(any(re.search(rf"\b{name}\b", text) for text in texts) for name in spans) < 2:
        divided = [match for text in texts if (match := re.fullmatch(r"(\d+) % (\w+) == 0", text))]
        return [{**least, one[2]: int(one[1]) * times} for one in divided for times in (2, 4)]  # as of powers of 2

    def ends(base: Mapping[str, int], axis: str) -> list[int]:
        span = spans[axis]
        most = span.first + LARGEST_NUMBER * span.step
        sizes = range(span.first, most if span.last is None else min(most, span.last + 1), span.step)
        held = [holds_at(texts, {**base, axis: size}) for size in sizes]
        changes = [at for at in range(1, len(held)) if held[at] != held[at - 1]][:MOST_ENDS]
        return [sizes[at - more] for at in changes for more in (1, 0)]

    found: list[dict[str, int]] = []
    for axis in spans:
        bases = [least]
        for other in (name for name in spans if name != axis):
            last = max((size for size in ends(least, other) if holds_at(texts, {**least, other: size})), default=None)
            bases += [] if last is None else [{**least, other: size} for size in (last, (least[other] + last) // 2)]
        found += [{**base, axis: size} for base in bases for size in ends(base, axis)]
    return found


def numbers_told(coverage: Coverage) -> list[int]:
    """The sizes at which a question of the symbolic runs changes its answer, with those before, and the divisors."""
    found: set[int] = set()
    for outcome in (*coverage.failed, *coverage.passed, *(each for each, _ in coverage.open)):
        found |= {span.step * times for span in outcome.spans.values() for times in (1, 2, 3) if span.step > 1}
        for guard in outcome.open:
            for node in sympy.preorder_traversal(guard.relation):
                if type(node).__name__ in ("Mod", "PythonMod", "FloorDiv") and node.args[1].is_Integer:
                    found |= {int(node.args[1]) * times for times in (1, 2, 3)}
            if len(guard.relation.free_symbols) == 1:
                [axis] = guard.relation.free_symbols
                whole = coverage.whole[str(axis)]
                with suppress(*BEYOND):
                    parts = divide(whole.part(1, None) or whole, guard.relation, axis)
                    found |= {part.first - more for part in parts[1:] for more in (0, 1)}
    return sorted(number for number in found if 1 < number <= LARGEST_NUMBER)[-MOST_NUMBERS:]


def _relations_told(coverage: Coverage) -> list[Any]:
    """The other answers to the questions on several axes that runs which fail had: there another run may pass."""
    found: dict[str, Any] = {}
    for outcome in coverage.failed:
        for guard in outcome.open:
            if len(guard.relation.free_symbols) > 1 and usable(guard.relation):
                found.setdefault(guard.text(), negation(guard.relation))
        for relation in outcome.relations:
            if isinstance(relation, sympy.Ne):
                found.setdefault(spelled(relation), negation(relation))
    return list(found.values())[:MOST_TOLD]


def sizes_told(coverage: Coverage) -> list[dict[str, int]]:
    """Some sizes, far from each other, for which a question on several axes has the other answer than where runs fail.

    Few of the sizes that are usually tried meet `(high//4)*(wide//4) == 9`.
    """
    found: list[dict[str, int]] = []
    small = {name: span.first for name, span in coverage.whole.items()}
    for relation in _relations_told(coverage):
        if isinstance(relation, sympy.Eq):
            some = list(islice(some_sizes((relation,), coverage.whole), 400))
            found += [{**small, **each} for each in some[:: max(1, len(some) // 8)]]
    return found


def _all_of(texts: Sequence[str]) -> Guess:
    return Guess(tuple(texts), ((tuple(texts), ()),))


def _true_of(texts: Sequence[str], trial: Trial) -> bool:
    """Whether a run does not refute conditions that are necessary."""
    return trial.error is not None or holds_at(texts, trial.sizes)


def _with_relations(
    table: Sequence[Trial], alone: Sequence[str], relations: Sequence[Any], order: Sequence[str]
) -> Iterable[Guess]:
    """What questions on several axes must be: alone, or 1 where something broadcasts, or beside those on one axis."""
    for relation in relations:
        text = spelled(turned(relation, order))
        yield Guess((text,), (((), (relation,)),))
        left, right = relation.args
        if isinstance(relation, sympy.Eq) and right.is_Integer and right > 1:
            yield Guess((f"{text} or {spelled(left)} == 1",), (((), (relation,)), ((), (sympy.Eq(left, 1),))))
        few = _needed(table, alone, text)
        for texts in dict.fromkeys((tuple(few), tuple(alone))):
            yield Guess((*texts, text), ((texts, (relation,)),))


def _needed(table: Sequence[Trial], alone: Sequence[str], text: str) -> list[str]:
    """The conditions on one axis that a further one does not say: without them the table would be another."""
    few = list(alone)
    for each in alone:
        less = [other for other in few if other != each]
        if all(holds_at((*less, text), one.sizes) == holds_at((*few, text), one.sizes) for one in table):
            few = less
    return few


def _products_divided(
    coverage: Coverage, table: Sequence[Trial], alone: Sequence[str], names: Sequence[str]
) -> Iterable[Guess]:
    """A product of two axes, or of three, that must be a multiple of a number."""
    numbers = {span.step for outcome in coverage.failed for span in outcome.spans.values() if span.step > 1}
    numbers |= {
        int(node.args[1])
        for outcome in (*coverage.failed, *(each for each, _ in coverage.open))
        for guard in outcome.open
        for node in sympy.preorder_traversal(guard.relation)
        if type(node).__name__ in ("Mod", "PythonMod") and node.args[1].is_Integer
    }
    for count in (2, 3):
        for some in combinations(names, count):
            product = sympy.prod(sympy.Symbol(name, integer=True, positive=True) for name in some)
            for number in sorted(numbers):
                text = f"{'*'.join(some)} % {number} == 0"
                relation = sympy.Eq(PythonMod(product, sympy.Integer(number)), 0)
                few = tuple(_needed(table, alone, text))
                yield Guess((*few, text), ((few, (relation,)),))


# On one axis.


def _divisors_left(table: Sequence[Trial], whole: Spans) -> Iterable[dict[str, int]]:
    """Where the sizes that pass are divisors of a number, those divisors that were not run, and some multiples."""
    passing = [trial.sizes for trial in table if trial.error is None]
    for name in whole:
        sizes = {each[name] for each in passing}
        if 2 < len(sizes) < 16 and (number := lcm(*sizes)) <= LARGEST_NUMBER:
            further = (*sympy.divisors(number), *(times * number for times in (2, 3, 4, 5)))
            yield from ({**passing[0], name: size} for size in further if size not in sizes)


def _divisors(table: Sequence[Trial], whole: Spans) -> Iterable[Guess]:
    """A size that divides a number, such as 12 % groups == 0."""
    for name in whole:
        sizes = sorted({trial.sizes[name] for trial in table if trial.error is None})
        if 2 < len(sizes) < 16 and sizes == sympy.divisors(lcm(*sizes)):
            ways = tuple(((f"{name} == {size}",), ()) for size in sizes)
            yield Guess((f"{lcm(*sizes)} % {name} == 0",), ways)


def _or_one(check: RealityCheck, case: Case, table: Sequence[Trial], whole: Spans) -> Iterable[Guess]:
    """A condition that holds too where an axis is 1, as what broadcasts does."""
    for name in whole:
        if any(trial.sizes[name] == 1 and trial.error is None for trial in table):
            alone = tuple(_on_one_axis(check, case, [one for one in table if one.sizes[name] != 1], whole))
            if alone:
                text = " and ".join(alone)
                either = f"{text} or {name} == 1" if len(alone) == 1 else f"({text}) or {name} == 1"
                yield Guess((either,), ((alone, ()), ((f"{name} == 1",), ())))


def _on_one_axis(check: RealityCheck, case: Case, table: Sequence[Trial], whole: Spans) -> list[str]:
    found: list[str] = []
    for name in whole:
        passing = {trial.sizes[name]: trial for trial in table if trial.error is None}
        rests = {_but(name, trial) for trial in table if trial.error is None}
        failing = {trial.sizes[name] for trial in table if trial.error is not None and _but(name, trial) in rests}
        if failing - passing.keys():
            found += _alone(check, case, name, passing, failing - passing.keys())
    return found


def _but(name: str, trial: Trial) -> tuple[int, ...]:
    """The sizes of all other axes."""
    return tuple(size for axis, size in trial.sizes.items() if axis != name)


def _alone(
    check: RealityCheck, case: Case, name: str, passing: Mapping[int, Trial], failing: Collection[int]
) -> list[str]:
    """Conditions on one axis: a single size, a remainder, bounds."""
    good, bad = sorted(passing), sorted(failing)
    span = case.spans()[name]
    if len(good) == 1 and good[0] + span.step in failing and good[0] - span.step in {*failing, span.first - span.step}:
        return [f"{name} == {good[0]}"]
    texts: list[str] = []
    inside = [size for size in bad if good[0] < size < good[-1]]
    if inside:
        whole = gcd(*(size - good[0] for size in good))
        for divisor in (each for each in range(64, 1, -1) if whole % each == 0):  # the largest that all passing share
            rest = good[0] % divisor
            if not any(size % divisor == rest for size in inside):
                texts.append(f"{name} % {divisor} == {rest}")
                bad = [size for size in bad if size % divisor == rest]
                break
    bounds: list[tuple[str, int | None]] = []
    if bad and bad[0] < good[0]:
        near = max(size for size in bad if size < good[0])
        bounds.append((">=", check.bound(case, name, passing[good[0]], near)))
    if bad and bad[-1] > good[-1]:
        near = min(size for size in bad if size > good[-1])
        bounds.append(("<=", check.bound(case, name, passing[good[-1]], near)))
    if any(bound is None for _, bound in bounds):
        return []
    return as_equalities([*texts, *(f"{name} {sign} {bound}" for sign, bound in bounds)])


def _challenges(table: Sequence[Trial], alone: Sequence[str]) -> Iterable[dict[str, int]]:
    """Of a remainder that was guessed, the sizes between, all of which must fail, and further ones, which must pass.

    Of bounds on two axes, sizes the other way round: a product may be what counts.
    """
    passing = sorted((trial.sizes for trial in table if trial.error is None), key=lambda sizes: max(sizes.values()))
    bounded = dict.fromkeys(text.partition(" ")[0] for text in alone if "%" not in text)
    for (one, other), base in product(combinations(bounded, 2), passing[:: 1 + len(passing) // 4]):
        yield {**base, one: base[other], other: base[one]}
    for text in alone:
        if found := re.fullmatch(r"(\w+) % (\d+) == \d+", text):
            name, divisor = found[1], int(found[2])
            steps = {divisor // prime for prime in sympy.primefactors(divisor)}
            bases = (passing[0], passing[len(passing) // 2], passing[-1])
            yield from ({**base, name: base[name] + step} for step in sorted(steps) for base in bases)
            yield from ({**bases[0], name: bases[0][name] + times * divisor} for times in (1, 2, 3, 5))


def _beyond(
    table: Sequence[Trial], alone: Sequence[str], relations: Sequence[Any], whole: Spans
) -> Iterable[dict[str, int]]:
    """Sizes at which an equation of two axes holds, and conditions on single axes that are guessed beside it do not.

    Those hold of the sizes that were run: beside `(high//4)*(wide//4) == 16` many others may pass.
    """
    base = next(trial.sizes for trial in table if trial.error is None)
    for relation in relations:
        names = sorted(str(axis) for axis in relation.free_symbols)
        if len(names) == 2 and isinstance(relation, sympy.Eq) and alone:
            one, other = ([size for size in range(1, MOST_BEYOND) if size in whole[name]] for name in names)
            pairs = ({**base, names[0]: size, names[1]: second} for size in one for second in other)
            found = [each for each in pairs if truth(relation, each) and not holds_at(alone, each)]
            yield from found[:: 1 + len(found) // 12]


MOST_BEYOND = 160
"""No larger size is looked for."""

FEW, NEAR = 4, 64
"""Fewer sizes than these are told one by one; all between them are run first, or if they are apart, those beside."""


def _few(table: Sequence[Trial], whole: Spans) -> Iterable[Guess]:
    """Two or three sizes of an axis, as where something of a fixed size is added: 1 and that size.

    Only where those beside them were run: sizes that pass are no condition if no other was tried.
    """
    for name, sizes in _few_sizes(table, whole):
        if _beside(sizes, whole[name]) <= {trial.sizes[name] for trial in table}:
            yield _any_of(*(f"{name} == {size}" for size in sizes))


def _few_sizes(table: Sequence[Trial], whole: Spans) -> Iterable[tuple[str, list[int]]]:
    """The axes of which two or three sizes pass, with these."""
    for name in whole:
        sizes = sorted({trial.sizes[name] for trial in table if trial.error is None})
        if 1 < len(sizes) < FEW:
            yield name, sizes


def _beside_few(table: Sequence[Trial], whole: Spans) -> Iterable[dict[str, int]]:
    """Runs beside the few sizes of an axis that pass."""
    for name, sizes in _few_sizes(table, whole):
        base = next(trial.sizes for trial in table if trial.error is None)
        yield from ({**base, name: size} for size in sorted(_beside(sizes, whole[name])))


def _beside(sizes: Sequence[int], span: Span) -> set[int]:
    """All sizes from the one before the first to the one after the last; if they are many, those next to each."""
    step = span.step
    near = range(sizes[0] - step, sizes[-1] + step + 1, step)
    found = near if len(near) <= NEAR else (size + more for size in sizes for more in (-step, 0, step))
    return {size for size in found if size in span}


# On several axes, where those on one leave some failures.


def _on_several(check: RealityCheck, case: Case, table: Sequence[Trial], alone: Sequence[str]) -> Iterable[Guess]:
    """Conditions on several axes beside those on one: one of them is large, or a product is small or large."""
    left = [trial for trial in table if holds_at(alone, trial.sizes)]
    failing = [trial for trial in left if trial.error is not None]
    passing = [trial for trial in left if trial.error is None]
    if not failing or not passing:
        return
    try:
        subject = replace(case.subject, assumed=(*case.subject.assumed, *map(_condition, alone)))
        narrow = replace(case, subject=subject)
        spans = narrow.spans()
    except ValueError:
        return
    if texts := _one_is_large(check, narrow, passing, failing):
        text = " or ".join(texts)
        small = [each.replace(" >= ", " < ") for each in texts]  # each alternative is proven where none before it holds
        ways = tuple(((*alone, *small[:at], each), ()) for at, each in enumerate(texts))
        yield Guess((*alone, f"({text})" if alone else text), ways)
    for one, other in combinations([name for name, span in spans.items() if not span.single], 2):
        relation = _product(check, narrow, passing, failing, (one, other))
        if relation is not None:
            yield Guess((*alone, relation), ((tuple(alone), (_relation(relation, (one, other)),)),))


def _condition(text: str) -> object:
    return read_conditions(text)[0]


def _one_is_large(check: RealityCheck, case: Case, passing: Sequence[Trial], failing: Sequence[Trial]) -> Sequence[str]:
    """For some axes a size each of which one is enough: all failures lie below all of them."""
    below = {name: max(trial.sizes[name] for trial in failing) for name in case.spans()}
    alone: dict[str, Trial] = {}
    for trial in passing:
        above = [name for name, size in trial.sizes.items() if size > below[name]]
        if len(above) == 1 and (above[0] not in alone or trial.sizes[above[0]] < alone[above[0]].sizes[above[0]]):
            alone[above[0]] = trial
    at = failing[-1].sizes
    spans = {name: span for name, span in case.spans().items() if name not in alone and not span.single}
    wanted = [
        {**at, name: below[name] + times * span.step}
        for name, span in spans.items()
        for times in (1, 2, 3, 4, 8, 16, 32)
    ]
    for trial in check.further(case, [], wanted, check.share()):  # those of which no run was large alone
        name = next(name for name, size in trial.sizes.items() if size != at[name])
        if trial.error is None:
            alone.setdefault(name, trial)
    if len(alone) < 2:
        return ()
    bounds = {name: check.bound(case, name, trial, below[name]) for name, trial in alone.items()}
    return () if None in bounds.values() else [f"{name} >= {bound}" for name, bound in bounds.items()]


def _product(
    check: RealityCheck, case: Case, passing: Sequence[Trial], failing: Sequence[Trial], names: tuple[str, str]
) -> str | None:
    """A bound of the product of two axes that divides the runs."""

    def area(trial: Trial) -> int:
        return prod(trial.sizes[name] for name in names)

    one, other = names
    small, large = min(map(area, passing)), max(map(area, passing))
    if large < min(map(area, failing)):
        sign, least = "<=", min(trial.sizes[other] for trial in passing)
    elif small > max(map(area, failing)):
        sign, least = ">=", min(trial.sizes[other] for trial in failing)
    else:
        return None
    bounds = [small if sign == ">=" else large]
    lines = [[trial for trial in group if trial.sizes[other] == least] for group in (passing, failing)]
    if all(lines):
        bound = check.bound(case, one, lines[0][0], lines[1][0].sizes[one])
        if bound is None:
            return None
        bounds.append(least * bound)
    return f"{one}*{other} {sign} {max(bounds) if sign == '<=' else min(bounds)}"


def _relation(text: str, names: Iterable[str]) -> Any:
    """A comparison of axes as the symbolic runs know it."""
    axes = {name: sympy.Symbol(name, integer=True, positive=True) for name in names}
    return cast(Any, sympy).sympify(text, locals=axes)


# Between two axes.


def _between(table: Sequence[Trial], names: Sequence[str]) -> Iterable[Guess]:
    """Conditions between two axes, and those that hold too where an axis is 1, as what broadcasts does."""
    for one, other in combinations(names, 2):
        orders = (f"{one} == {other}", f"{one} <= {other}", f"{one} >= {other}")
        alone = f"{one} == 1", f"{other} == 1"
        linear = [*_linear(table, one, other), *_linear(table, other, one)]
        yield from map(_any_of, (f"{one} % {other} == 0", f"{other} % {one} == 0"))
        for text in (*orders, *linear):
            yield from (_any_of(text), *(_any_of(text, each) for each in alone), _any_of(text, *alone))
        yield _any_of(*alone)


def _linear(table: Sequence[Trial], one: str, other: str) -> Iterable[str]:
    """An axis as a multiple of another, or as a part of it, and a number: as most runs that pass have them."""
    passing = [trial.sizes for trial in table if trial.error is None and min(trial.sizes[one], trial.sizes[other]) > 1]
    for factor in range(1, MOST_TIMES + 1):
        for way in (f"{other}*{factor}", f"{other}//{factor}")[: 1 + (factor > 1)]:
            values = [(sizes[other] * factor if "*" in way else sizes[other] // factor) for sizes in passing]
            rests = Counter(sizes[one] - value for sizes, value in zip(passing, values, strict=True))
            [(rest, count)] = rests.most_common(1) or [(0, 0)]
            if count == len(passing) > 1 and (factor > 1 or rest):
                term = other if factor == 1 else way
                yield f"{one} == {term}" + (f" {'+' if rest > 0 else '-'} {abs(rest)}" if rest else "")


def _any_of(*texts: str) -> Guess:
    return Guess((" or ".join(texts),), tuple(((text,), ()) for text in texts))
