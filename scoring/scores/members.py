"""The members of a pool: from SCORES folders or files of numbers, with answers and calibrations, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from scoring.errors import first_of, quoted
from scoring.inputs.prompt import LETTERS
from scoring.scores.exposure import CALIBRATION, calibrated_rows
from scoring.scores.folder import Columns, Scores, Source, opened, path_of
from scoring.scores.logits import SCORED
from scoring.scores.number_files import check_answers, is_number_file, read_number_file
from scoring.scores.probabilities import member_logits
from scoring.stats.calibration import Calibration, log_probabilities
from scoring.stats.pools import EnsembleError, PoolSettings, likeness
from scoring.tables.answers import AnswerTable

DEPENDS_ON = ("base", "template", "pixels", "quantization", "letters")  # what logits depend on, besides adapter, orders


@dataclass(eq=False)
class Member:
    """One member's numbers: (N, K) logits (raw log-probabilities averaged over orders, or what a file has).

    NaN where a row has fewer options, or no score. questions: columns of questions.parquet, as far as they are known.
    exposed: (N,) flags of `scores/exposure.py`. entry: the member in run.json, all of which goes into the run.json of a
    pool; the properties below read it. data: the table in run.json. path: the folder or file that holds the member.
    """

    name: str
    ids: list[str]
    logits: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)
    label_mass: np.ndarray | None = None
    status: list[str] = field(default_factory=list)
    fingerprint: str = ""
    questions: Columns = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)
    exposed: np.ndarray | None = None
    data: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()
    notes: list[str] = field(default_factory=list)

    @property
    def orders(self) -> str:
        """The option orders in which the member was scored."""
        return str(self.entry.get("orders", "1"))

    @property
    def trained_on_its_table(self) -> bool:
        """Whether the checkpoint was trained on the very table that the member scored."""
        return bool(self.data.get("sha256")) and self.entry.get("trained_on") == self.data["sha256"]

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, besides the rows."""
        return {
            key: self.entry.get(key) for key in ("fingerprint", "base", "template", "pixels", "quantization", "orders")
        }

    @property
    def flags(self) -> np.ndarray:
        """(N,) `exposed`, 0 where nothing is known."""
        return np.zeros(len(self.ids), np.uint8) if self.exposed is None else self.exposed


# ------------------------------------------------------------------ from folders and files
def read_members(
    source: Source, form: str = "auto", answers: AnswerTable | None = None, must_match: bool = True
) -> list[Member]:
    """The members of a SCORES folder, or of a file of numbers. Raises EnsembleError or RunError.

    form: what the letters' columns of a file hold, one of `number_files.FORMATS` or `auto`. answers: for rows without
    one; an answer that differs from a row's own is an error. must_match: so is a table with none of the ids.
    """
    members = members_of(opened(source)) if holds_scores(source) else _members_of_file(path_of(source), form)
    return members if answers is None else _with_answers(path_of(source), members, answers, must_match)


def holds_scores(source: Source) -> bool:
    """Whether this is a SCORES folder, not a file of numbers."""
    return isinstance(source, Scores) or not is_number_file(source)


def members_of(scores: Scores) -> list[Member]:
    """The members of an opened SCORES folder."""
    identity = scores.run_json["identity"]
    settings = {"orders": identity.get("orders", "1")} | {key: identity[key] for key in DEPENDS_ON if key in identity}
    result = []
    for index, (entry, calibration) in enumerate(zip(scores.run_json["checkpoints"], scores.calibrations)):
        with np.errstate(invalid="ignore"):
            mass = scores.logits.label_mass[:, index]
            mean = np.nansum(mass, 1) / np.maximum(np.isfinite(mass).sum(1), 1)
        result.append(
            Member(
                name=entry["member"],
                ids=scores.logits.ids,
                logits=member_logits(scores.logits, index),
                calibration=calibration,
                label_mass=np.where(np.isfinite(mass).any(1), mean, np.nan),
                status=scores.logits.status,
                fingerprint=entry.get("fingerprint") or "",
                questions=scores.questions,
                entry={**settings, **entry},
                exposed=scores.exposed[:, index],
                data=entry.get("data") or scores.run_json.get("data", {}),
                path=scores.folder,
            )
        )
    return result


def _members_of_file(path: Path, form: str) -> list[Member]:
    members, note = read_number_file(path, form)
    return [
        Member(
            name=member.name,
            ids=member.ids,
            logits=member.log_p,
            status=[SCORED if scored else "no number in the file" for scored in np.isfinite(member.log_p).any(1)],
            questions=member.questions,
            entry={"orders": "1", "file": str(path)},
            exposed=np.zeros(len(member.ids), np.uint8),
            data={"file": str(path)},
            path=path,
            notes=[note],
        )
        for member in members
    ]


def _with_answers(path: Path, members: list[Member], table: AnswerTable, must_match: bool) -> list[Member]:
    """The members with the table's answers and task types where they have none, and a note about the table.

    Raises EnsembleError, see `read_members`.
    """
    filled: dict[int, Columns] = {}  # by the columns' `id()`: members of a folder share their columns
    filled_ids: set[str] = set()
    contradictions: dict[str, str] = {}
    for member in members:
        if id(member.questions) in filled:
            continue
        columns = member.questions | {name: [*member.questions[name]] for name in ("answer", "task_type")}
        filled[id(member.questions)] = columns
        for row, name in enumerate(member.ids):
            answer, known = table.answer.get(name, ""), columns["answer"][row]
            if answer and known and answer != known:
                contradictions[name] = f"{quoted(name)} ({known}, and {answer} in the table)"
            elif answer and not known:
                columns["answer"][row] = answer
                filled_ids.add(name)
            columns["task_type"][row] = columns["task_type"][row] or table.task_type.get(name, "")
        check_answers(path, member.ids, columns["answer"], columns["answer"], np.isfinite(member.logits))
    ids = list(dict.fromkeys(name for member in members for name in member.ids))
    matches = len([name for name in ids if name in table.answer])
    if must_match and ids and not matches:
        example = f"such as {quoted(next(iter(table.answer)))}" if table.answer else "for it has no row"
        raise EnsembleError(
            f"{table.file}: none of its ids, {example}, is an id of {path}, such as {quoted(ids[0])}; expected the "
            "answers of these rows"
        )
    if contradictions:
        rows_have = "row has" if len(contradictions) == 1 else "rows have"
        raise EnsembleError(
            f"{path}: {len(contradictions):,} {rows_have} another answer in {table.file}: "
            f"{first_of(contradictions.values())}; expected one right answer for each id"
        )
    note = (
        f"{table.file}: has {matches:,} of the {len(ids):,} ids of {path}, fills in {len(filled_ids):,} "
        f"answer{'' if len(filled_ids) == 1 else 's'}"
    )
    return [replace(member, questions=filled[id(member.questions)], notes=[*member.notes, note]) for member in members]


# ------------------------------------------------------------------ names and weights
def distinct_names(choices: Sequence[Sequence[str]], numbered: Sequence[str]) -> list[str]:
    """The first of the choices that holds no name twice; if there is none, `numbered` with numbers in front."""
    for names in choices:
        if len(set(names)) == len(names):
            return list(names)
    return [f"{number}-{name}" for number, name in enumerate(numbered, 1)]


def member_names(members: Sequence[Member], paths: Sequence[Path]) -> list[str]:
    """Distinct names: the members' own, or those of the files if each holds one member, or numbered ones."""
    names, stems = [member.name for member in members], [path.stem for path in paths]
    return distinct_names([names, stems] if len(stems) == len(names) else [names], names)


def refuse_doubles(members: Sequence[Member], logits: np.ndarray) -> None:
    """EnsembleError where two members are one, which would count twice. logits: (M, N, K)."""
    log_p = log_probabilities(logits)
    for later in range(1, len(members)):
        for earlier in range(later):
            if (difference := likeness(log_p[earlier], log_p[later])) is not None:
                raise EnsembleError(
                    f"{members[earlier].name} of {members[earlier].path} and {members[later].name} of "
                    f"{members[later].path} have the same numbers in every row{difference}: one member would count "
                    "twice. Leave one of them out, or give it more weight with --weights"
                )


def weights_by_path(members: Sequence[Member], weights: np.ndarray) -> list[str]:
    """A note about the weight of each folder or file, where some hold several members."""
    paths = list(dict.fromkeys(str(member.path) for member in members))
    if len(paths) < 2 or len(paths) == len(members):
        return []
    shares = []
    for path in paths:
        names = [member.name for member in members if str(member.path) == path]
        share = sum(weight for member, weight in zip(members, weights) if str(member.path) == path)
        shares.append(f"{path} {share:.0%} ({', '.join(names)})")
    return [f"every member has its own weight, so that the sources weigh: {'; '.join(shares)}. Others: --weights"]


# ------------------------------------------------------------------ calibrations from files
def settings_of(member: Member) -> dict[str, Any]:
    """The fingerprint of a calibration of this member: its name, adapter and orders, and its known settings."""
    known = {key: member.entry[key] for key in DEPENDS_ON if member.entry.get(key)}
    return {"member": member.name, "adapter": member.fingerprint or None, **known, "orders": member.orders}


def match_calibrations(members: Sequence[Member], given: Sequence[Calibration]) -> list[Member]:
    """The members, each with the calibration that was given for it (by adapter, else by name), if one was.

    The rows that a given calibration was fitted on are flagged in the member's `exposed`. Raises EnsembleError for a
    calibration that fits no member, or that was made for other settings than the member's.
    """
    indices = [_named_by(calibration.fingerprint, members) for calibration in given]
    if unused := [calibration.fingerprint for calibration, named in zip(given, indices) if not named]:
        names = [f"{member.name} ({member.fingerprint})" if member.fingerprint else member.name for member in members]
        made_for = ", ".join(str(wanted.get("member") or wanted.get("adapter")) for wanted in unused)
        raise EnsembleError(f"--calibration: made for {made_for}; expected one of the members: {', '.join(names)}")
    result = list(members)
    for calibration, named in zip(given, indices):
        differences = {index: _differing_settings(members[index], calibration.fingerprint) for index in named}
        fitting = [index for index in named if not differences[index]]
        if not fitting:
            raise EnsembleError("--calibration: " + "; ".join(differences[named[0]]))
        for index in fitting:
            result[index] = _with_calibration(result[index], calibration)
    return result


def _with_calibration(member: Member, calibration: Calibration) -> Member:
    """The member with this calibration, and with the flags of the rows that it was fitted on."""
    fitted = calibrated_rows(member.questions, member.logits, calibration.digests, calibration.numbers)
    others = member.flags & np.uint8(255 - CALIBRATION)
    exposed = others | np.where(fitted, CALIBRATION, 0).astype(np.uint8)
    return replace(member, calibration=calibration, exposed=exposed)


def _named_by(fingerprint: dict[str, Any], members: Sequence[Member]) -> list[int]:
    """The members that a calibration's fingerprint names: by adapter, else by name."""
    if fingerprint.get("adapter"):
        return [index for index, member in enumerate(members) if member.fingerprint == fingerprint["adapter"]]
    return [index for index, member in enumerate(members) if member.name == fingerprint.get("member")]


def _differing_settings(member: Member, fingerprint: dict[str, Any]) -> list[str]:
    """Faults: settings that both a calibration and the member have, but differently.

    Fewer letters, such as abc of abcd, are no difference.
    """
    faults = []
    made_in = fingerprint.get("orders", "1")
    if made_in != member.orders:
        faults.append(
            f"orders is {made_in}, but {member.name} was scored in orders {member.orders}; calibrate rows scored in "
            "these"
        )
    for key in DEPENDS_ON:
        made_with, value = fingerprint.get(key), member.entry.get(key)
        if made_with and value and made_with != value and not (key == "letters" and made_with.startswith(value)):
            faults.append(
                f"{key} is {made_with}, but {member.name} was scored with {key} {value}; calibrate rows scored with "
                "that"
            )
    return faults


# ------------------------------------------------------------------ side by side
def in_order_of(ids: list[str], member: Member) -> list[int]:
    """(N,) the member's rows with these ids, all of which it has."""
    if member.ids == ids:
        return list(range(len(ids)))
    row_of = {id: row for row, id in enumerate(member.ids)}
    return [row_of[id] for id in ids]


def aligned(members: Sequence[Member]) -> np.ndarray:
    """(M, N, K) logits of all members, in the rows and their order of the first; rows are matched by id.

    Rows of one id must have the same options and, where they are known, the same picture, question and option texts.
    Raises EnsembleError with all faults at once.
    """
    first, faults, aligned_logits = members[0], [], []
    letters = max(member.logits.shape[1] for member in members)
    for member in members:
        if id_faults := _id_faults(first, member):
            faults += id_faults
            continue
        rows = in_order_of(first.ids, member)
        logits = np.full((len(first.ids), letters), np.nan)
        logits[:, : member.logits.shape[1]] = member.logits[rows]
        aligned_logits.append(logits)
        faults += _option_faults(first, member, np.isfinite(aligned_logits[0]), np.isfinite(logits))
        faults += _question_faults(first, member, rows)
    if faults:
        raise EnsembleError("\n".join(faults))
    return np.stack(aligned_logits)


def _id_faults(first: Member, member: Member) -> list[str]:
    """Faults of a member whose ids are not those of the first, each once."""
    if repeated := _repeated(member.ids):
        return [f"{member.name}: ids more than once: {first_of(repeated)}"]
    if member.ids == first.ids:
        return []
    known, expected = set(member.ids), set(first.ids)
    faults = []
    if missing := [quoted(id) for id in first.ids if id not in known]:
        faults.append(f"{member.name}: ids of {first.name} that are missing: {first_of(missing)}")
    if extra := [quoted(id) for id in member.ids if id not in expected]:
        faults.append(f"{member.name}: ids that {first.name} does not have: {first_of(extra)}")
    return faults


def _option_faults(first: Member, member: Member, expected: np.ndarray, present: np.ndarray) -> list[str]:
    """Faults of rows whose options are not those of the first member.

    expected, present: (N, K) bool, the options for which the first and this member have numbers.
    """
    faults = []
    scored = expected.any(1) & present.any(1)
    other_count = scored & (expected.sum(1) != present.sum(1))
    if other_count.any():
        listed = [
            f"{quoted(first.ids[row])} ({expected[row].sum()} and {present[row].sum()})"
            for row in np.flatnonzero(other_count)
        ]
        faults.append(f"{member.name}: another number of options than in {first.name}: {first_of(listed)}")
    other_letters = scored & ~other_count & (expected != present).any(1)
    if other_letters.any():
        listed = [
            f"{quoted(first.ids[row])} ({_letters(expected[row])} and {_letters(present[row])})"
            for row in np.flatnonzero(other_letters)
        ]
        faults.append(f"{member.name}: other options than in {first.name}: {first_of(listed)}")
    return faults


def _letters(present: np.ndarray) -> str:
    return "".join(letter for letter, is_present in zip(LETTERS, present) if is_present)


def _question_faults(first: Member, member: Member, rows: list[int]) -> list[str]:
    """Faults of rows that have one id, but not one question. rows: (N,) the member's, in the order of the first's."""
    faults = []
    for name, noun in (("picture_digest", "picture"), ("question", "question"), ("choices", "options' texts")):
        expected, values = first.questions.get(name), member.questions.get(name)
        if member is first or not expected or not values:
            continue
        listed = [
            quoted(id)
            for id, value, row in zip(first.ids, expected, rows)
            if value and values[row] and value != values[row]
        ]
        if listed:
            faults.append(f"{member.name}: another {noun} under the id of {first.name}: {first_of(listed)}")
    return faults


def _repeated(ids: list[str]) -> list[str]:
    """The ids that occur before in the list, quoted."""
    if len(set(ids)) == len(ids):
        return []
    seen: set[str] = set()
    repeated = []
    for id in ids:
        if id in seen:
            repeated.append(quoted(id))
        seen.add(id)
    return repeated


def column_of(ids: list[str], questions: Columns, name: str, otherwise: list[Any]) -> list[Any]:
    """(N,) a column of a member's questions in the rows of these ids; `otherwise` (N,) where it has no such cell."""
    column = questions.get(name)
    if not column:
        return otherwise
    if questions["id"] == ids:
        return column
    row_of = {id: row for row, id in enumerate(questions["id"])}
    return [column[row_of[id]] if id in row_of else other for id, other in zip(ids, otherwise)]


def exposure_of(members: Sequence[Member]) -> np.ndarray:
    """(N, M) each member's flags of exposure, in the rows of the first."""
    return np.stack([member.flags[in_order_of(members[0].ids, member)] for member in members], 1)


@dataclass(frozen=True, eq=False)
class MemberPool:
    """Members side by side, and how they are pooled.

    logits: (M, N, K) in the rows of the first member. calibrations: one for each member.
    """

    members: list[Member]
    logits: np.ndarray
    calibrations: list[Calibration]
    settings: PoolSettings

    @property
    def ids(self) -> list[str]:
        """(N,) of the rows."""
        return self.members[0].ids

    @property
    def names(self) -> list[str]:
        """(M,) of the members."""
        return [member.name for member in self.members]

    def calibrated(self, logits: np.ndarray, task_types: list[str]) -> np.ndarray:
        """(M, N, K) calibrated log-probabilities of the members' logits on any rows."""
        pairs = zip(self.calibrations, logits)
        return np.stack([calibration.apply(values, task_types) for calibration, values in pairs])
