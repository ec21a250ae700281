"""Damaged requests against a running server of the demo; a part of `python -m benchmarks.faults`.

Good bodies of both interfaces, with pictures as data URLs, as assets and as parts, plain and packed, are changed at
random: other values in their JSON, other bytes, cut, with damaged pictures, with headers that lie, or not HTTP at all.
Good ones are asked between them, and at the end alone: those must have the bits that they had at first.
"""

import base64
import copy
import gzip
import http.client
import json
import math
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psutil
import pyarrow as pa
from tqdm import tqdm

from tests.shared.broken_json import mutated

LONGEST = 30.0  # seconds that one request may take
BODY_SECONDS = 1.0
CLIENTS = 8
GROWTH = 1_024  # MiB that the process may grow while it is asked: as the bodies of all requests in hand may take
CLOSE = 1e-5  # of probabilities in other batches, on a CPU
JSON_TYPE = {"content-type": "application/json"}
MULTIPART = {"content-type": "multipart/form-data; boundary=bound"}
KINDS = ("damaged", "cut", "swap")


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire. wait: seconds between the halves of its body. said: its Content-Length."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_TYPE))
    method: str = "POST"
    wait: float = 0
    said: int | None = None
    raw: bool = False

    def wire(self) -> bytes:
        if self.raw:
            return self.body
        length = len(self.body) if self.said is None else self.said
        lines = [f"{self.method} {self.path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {length}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


# ------------------------------------------------------------------ good bodies
def url_of(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def decision(picture: bytes) -> dict[str, Any]:
    """A request of /v1/decisions with every kind of part, message and question."""
    image = {"type": "input_image", "image_url": url_of(picture)}
    call = {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"}
    return {
        "model": "fold0",
        "input": [
            {"role": "system", "content": "Look closely."},
            {"role": "user", "content": [{"type": "input_text", "text": "This:"}, image]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes?"}]},
            call,
            {"type": "function_call_output", "call_id": "1", "output": "seen"},
            {"role": "user", "content": [{"type": "input_json", "data": {"a": [1, None, {"b": "c"}]}}]},
        ],
        "questions": [
            {"type": "choice", "instructions": "Which?", "choices": [{"value": "one"}, {"value": "two"}], "name": "a"},
            {"type": "predicate", "instructions": [{"type": "input_text", "text": "Is it?"}], "hint": "h"},
            {"type": "score", "instructions": "How?", "levels": [{"label": "low"}, {"label": "high"}]},
        ],
        "members": True,
    }


def system(picture: bytes) -> dict[str, Any]:
    """A request of /v1/systemone with every kind of question."""
    return {
        "model": "fold0",
        "state": {"photo": "IMG", "list": [1, "two", None]},
        "questions": {
            "a": {"type": "choice", "instructions": "Which?", "criteria": {"one": "1", "two": None}},
            "b": {"type": "noul", "instructions": {"is": "it?"}, "criteria": {"true": "yes", "false": None}},
            "c": {"type": "score", "criteria": ["low", {"level": "high"}], "task_type": "t"},
        },
        "assets": {"IMG": {"type": "image", "format": "png", "data_base64": base64.b64encode(picture).decode()}},
        "orders": "cyclic",
    }


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def as_parts(body: dict[str, Any], picture: bytes) -> bytes:
    """The same body in multipart, with its picture as a part."""
    body = body | {"assets": {"IMG": {"type": "image", "part": "p"}}}
    head = b'--bound\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    return head % b"request" + dumped(body) + b"\r\n" + head % b"p" + picture + b"\r\n--bound--\r\n"


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


PACKING: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd}


LARGE: dict[str, Callable[[], bytes]] = {
    "values": lambda: b"[" + b"[]," * 10**6 + b"[]]",
    "text": lambda: b'"' + b"x" * 7 * 10**7 + b'"',
    "levels": lambda: b"{" * 10**6,
    "digits": lambda: b"1" * 10**7,
}


@cache
def bomb(kind: str, encoding: str) -> bytes:
    """What is small, and large once it is unpacked or parsed."""
    return PACKING[encoding](LARGE[kind]())


# ------------------------------------------------------------------ damaged ones
class Damage:
    """Draws damaged requests. change: what damages bytes, given a list of changes."""

    def __init__(self, pictures: list[bytes], change: Callable[[bytes, list], bytes], seed: int):
        self.pictures, self.change, self.chance = pictures, change, random.Random(seed)
        self.kinds = [self.shape, self.letters, self.cut, self.picture, self.parts, self.packed, self.headers]

    def draw(self) -> tuple[str, Sent]:
        """A kind of damage, and a request that has it."""
        if self.chance.random() < 0.005:
            return "bomb", self.bomb()
        if self.chance.random() < 0.01:
            return "raw", self.raw()
        kind = self.chance.choice(self.kinds)
        return kind.__name__, kind()

    def good(self, picture: bytes | None = None) -> tuple[str, dict[str, Any]]:
        make = self.chance.choice([decision, system])
        path = "/v1/decisions" if make is decision else "/v1/systemone"
        body = make(self.chance.choice(self.pictures) if picture is None else picture)
        if self.chance.random() < 0.7:  # the model is what takes the time
            name = self.chance.choice("abc")
            questions = body["questions"]
            body["questions"] = {name: questions[name]} if make is system else [questions["abc".index(name)]]
        return path, body

    def damaged(self, data: bytes) -> bytes:
        special = [b'"', b",", b"{", b"]", b"\0", b"\xff", b"\\u", b"\\ud800", b"\r\n--bound", b"9" * 5000, b"[" * 5000]
        changes = [
            (
                self.chance.choice(["flip", "cut", "drop", "insert", "double", "swap"]),
                self.chance.random(),
                self.chance.random(),
                self.chance.choice([*special, self.chance.randbytes(3)]),
            )
            for _ in range(self.chance.randint(1, 3))
        ]
        return self.change(data, changes)

    def shape(self) -> Sent:
        path, body = self.good()
        return Sent(path, dumped(mutated(copy.deepcopy(body), self.chance)))

    def letters(self) -> Sent:
        path, body = self.good()
        return Sent(path, self.damaged(dumped(body)))

    def cut(self) -> Sent:
        """Less than what is said, or more, or late."""
        path, body = self.good()
        content = dumped(body)
        said = len(content) if self.chance.random() < 0.7 else self.chance.choice([0, 1, 10**6, 10**12])
        wait = 2 * BODY_SECONDS if self.chance.random() < 0.01 else 0
        return Sent(path, content[: self.chance.randrange(len(content))], said=said, wait=wait)

    def picture(self) -> Sent:
        picture = self.damaged(self.chance.choice(self.pictures))
        path, body = self.good(picture)
        return Sent(path, dumped(body))

    def parts(self) -> Sent:
        picture = self.chance.choice(self.pictures)
        content = as_parts(system(picture), picture)
        path = "/v1/systemone" if self.chance.random() < 0.9 else "/v1/decisions"
        return Sent(path, self.damaged(content), MULTIPART)

    def packed(self) -> Sent:
        path, body = self.good()
        encoding = self.chance.choice(list(PACKING))
        content = PACKING[encoding](dumped(body))
        if self.chance.random() < 0.8:
            content = self.damaged(content)
        return Sent(path, content, JSON_TYPE | {"content-encoding": encoding})

    def headers(self) -> Sent:
        path, body = self.good()
        name, value = self.chance.choice(
            [
                ("content-type", "text/plain"),
                ("content-type", "multipart/form-data"),
                ("content-type", "multipart/form-data; boundary=" + "x" * 300),
                ("content-type", 'application/json; charset="' + "x;" * 9_000),
                ("content-encoding", self.chance.choice(["br", "gzip", "zstd", "gzip, gzip", "\xff"])),
                ("content-length", self.chance.choice(["-1", "x", "9" * 5_000, "1, 2"])),
                ("transfer-encoding", self.chance.choice(["chunked", "gzip", "identity"])),
                ("authorization", "Bearer \xff" * 100),
                ("expect", "100-continue"),
                ("x-many", "y" * 80_000),
            ]
        )
        method = "POST" if self.chance.random() < 0.9 else self.chance.choice(["GET", "PUT", "TRACE", "FOO"])
        path = (
            path if self.chance.random() < 0.9 else self.chance.choice(["/", "/v1/models/%00", "/v1/decisions/", "*"])
        )
        return Sent(path, dumped(body), JSON_TYPE | {name: value}, method)

    def raw(self) -> Sent:
        path, body = self.good()
        wire = Sent(path, dumped(body)).wire()
        return Sent(
            "", self.chance.choice([self.damaged(wire[:200]) + wire[200:], self.chance.randbytes(500)]), raw=True
        )

    def bomb(self) -> Sent:
        path, _ = self.good()
        encoding = self.chance.choice(list(PACKING))
        return Sent(path, bomb(self.chance.choice(list(LARGE)), encoding), JSON_TYPE | {"content-encoding": encoding})


# ------------------------------------------------------------------ asking
def exchange(port: int, sent: Sent) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer; status 0 where the connection ended without one. Raises TimeoutError."""
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as sock:
        wire = sent.wire()
        half = len(wire) // 2
        try:
            sock.sendall(wire[:half] if sent.wait else wire)
            if sent.wait:
                time.sleep(sent.wait)
                sock.sendall(wire[half:])
            elif sent.raw or (sent.said or 0) > len(sent.body):
                sock.shutdown(socket.SHUT_WR)  # the rest never comes
        except TimeoutError:
            raise
        except OSError:  # refused before all was sent: there is an answer all the same
            pass
        response = http.client.HTTPResponse(sock, method=sent.method)
        try:
            response.begin()
            return response.status, {name.casefold(): value for name, value in response.getheaders()}, response.read()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            return 0, {}, b""


def fault_of(status: int, headers: dict[str, str], content: bytes) -> str:
    """What is wrong with an answer; "" if nothing is."""
    if status == 0 or (status == 400 and content == b"Invalid HTTP request received."):
        return ""
    if status >= 500 and status != 503:
        return f"status {status}"
    if headers.get("content-type") != "application/json":
        return "no JSON"
    body = json.loads(content)
    if status != 200:
        good = isinstance(body, dict) and set(body["error"]) == {"message", "type", "param", "code"}
        good = good and bool(body["error"]["message"]) and (status not in (429, 503) or "retry-after" in headers)
        return "" if good else "no error object"
    answers = body["answers"]
    for answer in answers.values() if isinstance(answers, dict) else answers:
        found = answer.get("probabilities", [])
        found = found.values() if isinstance(found, dict) else [each["probability"] for each in found]
        found = list(found) or [answer[key] for key in ("probability", "noul") if key in answer]
        if answer["type"] != "refusal" and not all(0 <= each <= 1 for each in found):
            return "no probabilities"
    return ""


def numbers_of(value: Any) -> list[float]:
    """All numbers of an answer, in their places."""
    if isinstance(value, dict):
        return [each for key in sorted(value) for each in numbers_of(value[key])]
    if isinstance(value, list):
        return [each for item in value for each in numbers_of(item)]
    return [float(value)] if isinstance(value, int | float) else []


@contextmanager
def serving(scorer: Any) -> Iterator[int]:
    """The port of a server that answers until the end of the block, in a thread of this process."""
    from scoring.serving.server import listen, make_server
    from scoring.serving.settings import ServeSettings

    settings = ServeSettings(("fold0",), port=0, body_seconds=BODY_SECONDS)
    with listen(settings) as bound:
        bound.listen()  # who asks before the thread runs waits
        server = make_server(scorer, settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(LONGEST)


class Campaign:
    """Damaged requests by several clients at once, and good ones between them."""

    def __init__(self, port: int, damage: Damage, good: list[Sent]):
        self.port, self.damage, self.good = port, damage, good
        self.lock = threading.Lock()
        self.statuses, self.kinds, self.faults = Counter[str](), Counter[str](), Counter[str]()
        self.slowest = 0.0
        self.expected = [self.answer(sent) for sent in good]

    def answer(self, sent: Sent) -> bytes:
        status, _, content = exchange(self.port, sent)
        assert status == 200, content[:500]
        return content

    def one(self, number: int) -> None:
        """Ask once, damaged; and every 20th time also a good one."""
        with self.lock:
            kind, sent = self.damage.draw()
        start = time.monotonic()
        try:
            status, headers, content = exchange(self.port, sent)
            fault = fault_of(status, headers, content)
        except TimeoutError:
            status, fault = 0, "hung"
        if number % 20 == 0:
            fault = fault or self.disturbed(number // 20 % len(self.good))
        with self.lock:
            self.slowest = max(self.slowest, time.monotonic() - start)
            self.kinds[kind] += 1
            self.statuses[str(status or "closed")] += 1
            if fault:
                self.faults[f"{kind}: {fault}"] += 1

    def disturbed(self, number: int) -> str:
        """A good request among damaged ones: "" where its answer is as it should be, but for its rounding."""
        found, expected = (json.loads(each) for each in (self.answer(self.good[number]), self.expected[number]))
        pairs = list(zip(numbers_of(found), numbers_of(expected), strict=True))
        return "" if all(math.isclose(one, two, abs_tol=CLOSE) for one, two in pairs) else "another answer"

    def run(self, times: int) -> None:
        left, bar = iter(range(times)), tqdm(total=times, unit="request", desc="requests")

        def client() -> None:
            while True:
                with self.lock:
                    number = next(left, None)
                    bar.update(number is not None)
                if number is None:
                    return
                try:
                    self.one(number)
                except Exception as error:
                    with self.lock:
                        self.faults[f"client: {error!r}"[:300]] += 1

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bar.close()


def damaged_requests(
    scorer: Any, pictures: list[bytes], change: Callable[[bytes, list], bytes], times: int, seed: int
) -> dict[str, Any]:
    """`times` damaged requests against a server around a `Scorer`; what is not as it should be is in `faults`."""
    process, mib = psutil.Process(), 2**20
    for kind in LARGE:
        for encoding in PACKING:
            bomb(kind, encoding)
    with serving(scorer) as port:
        first = pictures[0]
        good = [Sent("/v1/decisions", dumped(decision(first))), Sent("/v1/systemone", dumped(system(first)))]
        good.append(Sent("/v1/systemone", as_parts(system(first), first), MULTIPART))
        campaign = Campaign(port, Damage(pictures, change, seed), good)
        campaign.run(times // 10)  # what is made at first is no growth
        before, peak, ended = process.memory_info().rss, [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                peak[0] = max(peak[0], process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.monotonic()
        campaign.run(times - times // 10)
        seconds = time.monotonic() - start
        ended.set()
        watcher.join()
        after = [campaign.answer(sent) for sent in good]
        left = json.loads(exchange(port, Sent("/health", b"", method="GET"))[2])["requests_in_progress"]
        memory = [round(bytes_ / mib) for bytes_ in (before, peak[0], process.memory_info().rss)]
    return {
        "requests": sum(campaign.kinds.values()),
        "kinds": dict(campaign.kinds.most_common()),
        "statuses": dict(campaign.statuses.most_common()),
        "slowest_seconds": round(campaign.slowest, 2),
        "seconds": round(seconds, 1),
        "mib_before_peak_after": memory,
        "faults": dict(campaign.faults),
        "failed": sum(campaign.faults.values()),
        "hung": int(campaign.slowest > LONGEST) + left,
        "other_bits": sum(one != two for one, two in zip(after, campaign.expected)),
        "too_much_memory": int(memory[1] - memory[0] > GROWTH),
    }
