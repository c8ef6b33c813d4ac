"""The arrows of the house: each module imports only what stands below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "server" / "cdb_server"
CLIENT = ROOT / "client" / "cdb"

# From the top down; what stands in one line may import one another.
SERVER_LAYERS = (
    ("cli",),
    ("http", "pages"),
    ("soap",),
    ("mirror", "maintenance"),
    ("repository",),
    ("database",),
    ("validity", "journal"),
    ("schema",),
    ("model", "errors", "settings", "instants", "arguments", "logs"),
)
CLIENT_LAYERS = (
    ("cli",),
    ("cabling",),
    ("supermouse",),
    ("calibration",),
    ("_legacy_soap",),
    ("_resolver",),
    ("_failover",),
    ("_transport",),
    ("_legacy", "_arguments"),
    ("records", "_instants"),
    ("_exceptions", "_files"),
)


def modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The dotted names that a module imports, at its top or within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(dotted: str, package: str) -> str:
    """The part of the package that a dotted name lies in; empty for the package itself or another."""
    head, _, rest = dotted.partition(".")
    return rest.partition(".")[0] if head == package else ""


def climbing(package: Path, layers: tuple[tuple[str, ...], ...]) -> list[str]:
    """The imports that go up."""
    floor = {name: depth for depth, names in enumerate(layers) for name in names}
    wrong = []
    for path in modules(package):
        here = path.relative_to(package).parts[0].removesuffix(".py")
        if here in ("__init__", "__main__"):
            continue
        assert here in floor, f"{path} has no place in the layers"
        for name in imports(path):
            there = part(name, package.name)
            if there in floor and floor[there] < floor[here]:
                wrong.append(f"{here} -> {there} ({path.name})")
    return wrong


@pytest.mark.parametrize(("package", "layers"), [(SERVER, SERVER_LAYERS), (CLIENT, CLIENT_LAYERS)])
def test_each_layer_imports_only_what_stands_below_it(package: Path, layers: tuple[tuple[str, ...], ...]) -> None:
    """No import goes up, and every module has a place."""
    assert climbing(package, layers) == []


def test_an_import_that_goes_up_would_be_found(tmp_path: Path) -> None:
    """The test above can fail."""
    package = tmp_path / "cdb_server"
    package.mkdir()
    (package / "schema.py").write_text("from cdb_server.repository import Reader\n")
    assert climbing(package, SERVER_LAYERS) == ["schema -> repository (schema.py)", "schema -> repository (schema.py)"]


def test_client_and_server_do_not_know_each_other() -> None:
    """The client imports nothing of the server, and the server nothing of the client but to follow a master."""
    assert not [path for path in modules(CLIENT) if any(name.startswith("cdb_server") for name in imports(path))]
    users = [path for path in modules(SERVER) if any(name.split(".")[0] == "cdb" for name in imports(path))]
    assert {path.name for path in users} == {"mirror.py"}


@pytest.mark.parametrize(
    ("library", "package", "only"),
    [
        ("spyne", SERVER, "soap"),
        ("sqlalchemy", SERVER, "repository database validity schema"),
        ("psycopg", SERVER, "database"),
        ("starlette", SERVER, "http pages"),
        ("jinja2", SERVER, "pages"),
        ("python_multipart", SERVER, "pages"),
        ("uvicorn", SERVER, "http"),
        ("prometheus_client", SERVER, "http"),
        ("click", SERVER, "cli"),
        ("zeep", CLIENT, "_resolver/soap.py _legacy_soap.py"),
        ("requests", CLIENT, "_transport/connection.py"),
        ("urllib3", CLIENT, "_transport/connection.py"),
        ("click", CLIENT, "cli"),
    ],
)
def test_a_library_is_imported_in_one_place(library: str, package: Path, only: str) -> None:
    """spyne only in soap, zeep only where SOAP is spoken, transactions only in the repository."""
    users = [
        path.relative_to(package).as_posix()
        for path in modules(package)
        if any(name.split(".")[0] == library for name in imports(path))
    ]
    assert [user for user in users if not user.startswith(tuple(only.split()))] == []


def test_every_module_says_its_idea_first() -> None:
    """The first line of every module is a sentence about it."""
    silent = [
        path
        for folder in (SERVER, CLIENT, ROOT / "demo")
        for path in modules(folder)
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
