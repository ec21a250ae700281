"""The rows that training does not see."""

from collections import Counter

from sklearn.model_selection import train_test_split

from scoring.inputs.questions import Question

UNKNOWN = "unknown"


def strata(questions: list[Question]) -> list[str]:
    """The task type of each row; missing ones, and those with a single row, count as "unknown"."""
    types = [question.task_type or UNKNOWN for question in questions]
    counts = Counter(types)
    return [UNKNOWN if counts[name] < 2 else name for name in types]


def split(questions: list[Question], share: float, seed: int) -> tuple[list[Question], list[Question], list[str]]:
    """(training rows, validation rows, notices): a random share, stratified by task type where that can be done."""
    labels, notices = strata(questions), []
    counts, held_out = Counter(labels), round(len(questions) * share)
    if min(counts.values()) < 2 or held_out < len(counts):
        labels = None
        notices.append(
            f"validation rows are drawn without regard to task type: {len(questions)} rows of {len(counts)} types "
            f"are too few to stratify {held_out}"
        )
    train, valid = train_test_split(questions, test_size=share, random_state=seed, shuffle=True, stratify=labels)
    pictures = {question.picture for question in train}
    if shared := sum(question.picture in pictures for question in valid):
        notices.append(f"{shared} of {len(valid)} validation rows have a picture that is also in training")
    return train, valid, notices
