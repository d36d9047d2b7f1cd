"""Downloads, against a server on this machine."""

import hashlib
import http.server
import threading
import zipfile

import pytest

from fairseq_lambda.corpora.download import Archive, fetch, unpack_wiki_files
from fairseq_lambda.corpora.errors import PrepareError

CONTENT = bytes(range(256)) * 4000
SIZE = len(CONTENT)
NAME = "corpus.zip"


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT: /ok, /no-range, /cut (each answer stops early), /wrong, /forbidden, /long."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None, str]] = []

    def handle_error(self, *_):
        """Print nothing: a client that is offered the wrong size just closes the connection."""

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/{NAME}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        behaviour = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.server.requests.append((behaviour, wanted, self.headers["User-Agent"]))
        if behaviour == "forbidden":
            return self._answer(403, b"<Error>AccessDenied</Error>")
        body = {"wrong": b"x" * SIZE, "long": CONTENT + b"x"}.get(behaviour, CONTENT)
        begin = int(wanted[6:-1]) if wanted and behaviour != "no-range" else 0
        if begin >= len(body):
            return self._answer(416, b"")
        rest = body[begin:]
        sent = rest[: SIZE // 2 + 1] if behaviour == "cut" else rest
        if behaviour == "page":
            rest = sent = b"<html>small</html>"
        self._answer(206 if begin else 200, sent, len(rest), f"bytes {begin}-{len(body) - 1}/*")

    def _answer(self, status, body, length=None, content_range=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if status == 206:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive(*mirrors, size=SIZE):
    return Archive(NAME, hashlib.sha256(CONTENT).hexdigest(), size, mirrors)


def assert_only(folder, content=CONTENT):
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_bytes() == content


def test_a_file_is_fetched_once_and_found_again(server, tmp_path):
    wanted = archive(server.url("ok"))
    assert fetch(wanted, tmp_path / "new") == tmp_path / "new" / NAME
    assert_only(tmp_path / "new")
    fetch(wanted, tmp_path / "new")
    assert len(server.requests) == 1
    assert "urllib" not in server.requests[0][2]


@pytest.mark.parametrize("size", [SIZE, None])
def test_an_interrupted_download_is_resumed_where_it_stopped(server, tmp_path, size):
    fetch(archive(server.url("cut"), size=size), tmp_path)
    assert_only(tmp_path)
    assert [wanted for _, wanted, _ in server.requests] == [None, f"bytes={SIZE // 2 + 1}-"]


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("behaviour", ["ok", "no-range"])
@pytest.mark.parametrize(
    ("name", "content", "begin"),
    [
        (NAME, b"damaged", None),
        (f"{NAME}.part", CONTENT[:1000], 1000),
        (f"{NAME}.part", CONTENT, SIZE),
        (f"{NAME}.part", b"?" * 1000, 1000),
        (f"{NAME}.part", b"?" * SIZE, SIZE),
        (f"{NAME}.part", b"?" * (SIZE + 5), SIZE + 5),
    ],
)
def test_what_an_earlier_run_left_is_used_or_replaced(server, tmp_path, name, content, begin, behaviour, size):
    (tmp_path / name).write_bytes(content)
    fetch(archive(server.url(behaviour), size=size), tmp_path)
    assert_only(tmp_path)
    assert server.requests[0][1] == (begin and f"bytes={begin}-")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("wrong", "sha256 is"),
        ("forbidden", "HTTP 403"),
        ("page", "offers 18 bytes, expected"),
        ("long", "offers 1,024,001 bytes"),
    ],
)
def test_a_mirror_that_fails_is_named_and_leaves_nothing(server, tmp_path, behaviour, reason):
    with pytest.raises(PrepareError, match=reason) as caught:
        fetch(archive(server.url(behaviour)), tmp_path)
    assert server.url(behaviour) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_mirrors_are_tried_in_turn(server, tmp_path):
    mirrors = [server.url(behaviour) for behaviour in ("forbidden", "wrong", "ok")]
    fetch(archive(*mirrors), tmp_path)
    assert_only(tmp_path)


def test_when_all_mirrors_are_dead_each_is_listed_with_the_remedy(server, tmp_path):
    dead = f"http://127.0.0.1:1/{NAME}"
    with pytest.raises(PrepareError) as caught:
        fetch(archive(dead, server.url("forbidden"), "no address " + NAME), tmp_path, timeout=5)
    message = str(caught.value)
    assert all(part in message for part in (dead, "403", "no address", "WIKITEXT_DIR", "--mirror"))
    assert "\n" not in message


def test_given_mirrors_replace_the_known_ones_and_may_be_folders(server, tmp_path):
    folder = server.url("ok").rpartition("/")[0]
    fetch(archive(server.url("forbidden")), tmp_path, mirrors=(folder + "/",))
    assert_only(tmp_path)
    assert [behaviour for behaviour, *_ in server.requests] == ["ok"]


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w") as zipped:
        for name in members:
            zipped.writestr(name, name)
    return path


def test_only_wiki_files_leave_a_zip_and_none_leaves_the_folder(tmp_path):
    members = ["../../wiki.train.raw", "/abs/wiki.valid.raw", "w/wiki.test.raw", "../evil.txt", "w/wiki.train.raw.exe"]
    path = zip_of(tmp_path / "a.zip", *members)
    folder = tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    files = unpack_wiki_files(path, folder)
    assert files == {split: folder / f"wiki.{split}.raw" for split in ("train", "valid", "test")}
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {path, *files.values()}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (["wiki.train.raw", "wiki.test.raw"], "no wiki.valid"),
        (["a/wiki.train.raw", "b/wiki.train.raw"], "train split twice"),
    ],
)
def test_a_zip_without_exactly_three_splits_is_refused(tmp_path, members, reason):
    with pytest.raises(PrepareError, match=reason):
        unpack_wiki_files(zip_of(tmp_path / "a.zip", *members), tmp_path)


def test_a_damaged_zip_is_refused(tmp_path):
    data = bytearray(zip_of(tmp_path / "a.zip", "wiki.train.raw").read_bytes())
    data[45] ^= 255  # inside the stored text, so that its checksum is wrong
    (tmp_path / "a.zip").write_bytes(data)
    (tmp_path / "b.zip").write_bytes(b"no zip")
    for name in ("a.zip", "b.zip"):
        with pytest.raises(PrepareError, match="not a usable zip"):
            unpack_wiki_files(tmp_path / name, tmp_path)
