"""A site's modules: read from its files, and chosen for a job."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.adding import modules_for
from services.node_agent.inside.choosing import choose
from services.node_agent.inside.module import Module
from services.node_agent.inside.site_files import Files, SiteFiles, load
from shared.inside.environment import Changes
from shared.inside.plan import Bind, Copy, Node
from tests.support.module_site import ModuleSite

SHIPPED = Path(__file__).parents[3] / "deploy/modules"


@pytest.fixture
def site(tmp_path: Path) -> ModuleSite:
    return ModuleSite(tmp_path)


def files(**modules: dict[str, Any]) -> Files[Module]:
    return Files({name: Module.model_validate(each) for name, each in modules.items()})


def names(modules: Files[Module], *wanted: str, label: str = "") -> list[str]:
    return list(choose(modules, wanted, {"module": label} if label else {}))


MODULES = files(
    base={},
    mpich={"mpi": "mpich", "default": True, "requires": ["base"]},
    openmpi={"mpi": "openmpi", "by_label": True},
    gpu={"by_label": True, "conflicts": ["other"]},
    other={},
    secret={},
)


def test_what_a_job_gets() -> None:
    assert names(MODULES) == ["base", "mpich"]
    assert names(MODULES, "none") == []
    assert names(MODULES, "none", "other") == ["other"]
    assert names(MODULES, "other", "secret") == ["base", "mpich", "other", "secret"]
    assert names(MODULES, "secret", "other", "secret")[-2:] == ["other", "secret"]


def test_what_an_image_gets_by_its_label() -> None:
    assert names(MODULES, label="gpu secret nothing") == ["base", "mpich", "gpu"]
    assert names(MODULES, "none", label="gpu") == []
    # The image knows better than the default, and the job better than the image.
    assert names(MODULES, label="gpu,openmpi") == ["gpu", "openmpi"]
    assert names(MODULES, "mpich", label="openmpi") == ["base", "mpich"]
    assert names(MODULES, "other", label="gpu") == ["base", "mpich", "other"]


def test_what_cannot_be_together_or_is_not_there() -> None:
    with pytest.raises(InsideRefusedError, match=r"gpu and other cannot .* choose one"):
        names(MODULES, "gpu", "other")
    with pytest.raises(InsideRefusedError, match="mpich and openmpi cannot"):
        names(MODULES, "mpich", "openmpi")  # there is one MPI
    with pytest.raises(InsideRefusedError, match=r"no module 'nothing' .* base, gpu, mpich"):
        names(MODULES, "nothing")
    with pytest.raises(InsideRefusedError, match="no module 'b', which the module 'a' requires"):
        names(files(a={"requires": ["b"]}), "a")


def test_what_a_module_requires_is_as_wanted_as_itself() -> None:
    modules = files(
        a={"requires": ["b"]}, b={"requires": ["a"]}, c={"default": True, "conflicts": ["b"]}
    )
    assert names(modules) == ["c"]
    assert names(modules, "a") == ["b", "a"]
    # A default that cannot be had takes along what needs it.
    modules = files(a={"default": True, "requires": ["b"]}, b={}, c={"conflicts": ["b"]})
    assert names(modules, "c") == ["c"]


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.fixed_dictionaries(
            {
                "default": st.booleans(),
                "by_label": st.booleans(),
                "conflicts": st.lists(st.sampled_from("abcdef"), max_size=2),
                "requires": st.lists(st.sampled_from("abcdef"), max_size=2),
            }
        ),
    ),
    st.lists(st.sampled_from("abcdef"), max_size=3),
    st.lists(st.sampled_from("abcdef"), max_size=3),
)
def test_what_is_chosen_goes_together(
    modules: dict[str, dict[str, Any]], wanted: list[str], label: list[str]
) -> None:
    known = files(**modules)
    try:
        chosen = names(known, *wanted, label=",".join(label))
    except InsideRefusedError:
        return
    assert set(wanted) <= set(chosen)
    for name in chosen:
        module = known.found[name]
        assert set(module.requires) <= set(chosen)
        assert not set(module.conflicts) & set(chosen) - {name}


def test_what_modules_come_to(site: ModuleSite) -> None:
    site.module(
        "a",
        binds=[{"from": "/opt/a/"}, {"from": "/opt/b", "to": "/b", "read_only": False}],
        copies=[{"from": "/etc/a.conf", "to": "/etc/b.conf", "optional": True}],
        devices=["/dev/nul[l]", "/dev/not-there-*", "/dev/zero"],
        env={"set": {"A": "1"}, "prepend": {"PATH": "/a"}, "unset": ["B"]},
        before=[{"run": ["/bin/true", "x"], "seconds": 3}],
    )
    site.module("b", requires=["a"], binds=[{"from": "/opt/a"}], env={"append": {"PATH": "/b"}})
    found = modules_for(site.site, ["b"], {}, Path("/nothing"))
    assert found.names == ("a", "b")
    assert found.mounts == (
        Bind("/opt/a", "/opt/a", read_only=True),
        Bind("/opt/b", "/b"),
        Copy("/etc/a.conf", "/etc/b.conf", optional=True),
    )
    assert found.nodes == (Node("/dev/null"), Node("/dev/zero"))
    assert found.changes == (
        Changes(set={"A": "1"}, prepend={"PATH": "/a"}, unset=("B",)),
        Changes(append={"PATH": "/b"}),
    )
    assert [(hook.run, hook.seconds) for hook in found.before] == [(("/bin/true", "x"), 3.0)]
    assert found.after == ()


def test_files_are_read_again_when_they_change(site: ModuleSite) -> None:
    read = site.site.files.read
    assert read() == Files({}, {})
    path = site.module("a", about="first")
    found = read().found["a"]
    assert found.about == "first"
    assert read().found["a"] is found
    site.module("a", about="the second")
    assert read().found["a"].about == "the second"
    path.unlink()
    assert not read().found
    assert SiteFiles(site.modules / "nothing", Module, ".yaml").read() == Files({}, {})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("binds: [", "is no YAML"),
        ("bind: []", "bind: Extra inputs"),
        ("[]\n- a", "is no YAML"),
        ("- a", "valid dictionary"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("devices: [/etc/passwd]", "devices.0: .* below /dev"),
        ("devices: [/dev/../etc/passwd]", "devices.0: "),
        ("binds: [{from: relative}]", "binds.0.from: "),
        ("binds: [{from: /a, to: /}]", "binds.0.to: "),
        ("min_libc: 2.10", "min_libc: "),
        ("cdi: [gpu]", "cdi.0: "),
        ("before: [{run: [sh, -c, id]}]", "before.0.run: .* from the root on"),
        ("conflicts: [../x]", "conflicts.0: "),
        ("{" * 5000, "is no YAML"),
        ("- " * 100_000, "in each other"),
        ('about: !!int ""', "is no YAML"),
        ("about: !!timestamp x", "is no YAML"),
        ("\0", "is no YAML"),
        (" " * (3 << 20), "more than 2 MiB"),
    ],
)
def test_a_broken_file_fails_those_who_want_it(site: ModuleSite, content: str, why: str) -> None:
    site.module("good", default=True)
    path = site.broken("bad", content)
    with capture_logs() as logs:
        assert modules_for(site.site, [], {}, Path("/nothing")).names == ("good",)
        for wanted, labels in ((["bad"], {}), ([], {"module": "bad"})):
            with pytest.raises(InsideRefusedError, match=f"(?s)'bad' .* operators .*{why}"):
                modules_for(site.site, wanted, labels, Path("/nothing"))
    assert [log["file"] for log in logs] == [str(path)]  # once, for it did not change


def test_a_file_that_others_may_write_is_not_obeyed(site: ModuleSite) -> None:
    site.module("a").chmod(0o664)
    with pytest.raises(InsideRefusedError, match="written to by others than root"):
        modules_for(site.site, ["a"], {}, Path("/nothing"))
    site.modules.joinpath("a.yaml").chmod(0o644)
    assert modules_for(site.site, ["a"], {}, Path("/nothing")).names == ("a",)


@given(st.binary(max_size=200))
def test_no_bytes_of_a_file_raise(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        assert isinstance(load(Path(file.name), Module), str | Module)


def test_the_shipped_modules() -> None:
    found = SiteFiles(SHIPPED, Module, ".yaml").read()
    assert not found.broken
    assert list(found.found) == ["cvmfs", "gpu-amd", "gpu-nvidia", "mpich", "openmpi", "pmix"]
    for name, module in found.found.items():
        assert module.about, name
        assert set(module.conflicts) | set(module.requires) <= set(found.found)
    assert [name for name, module in found.found.items() if module.default] == ["cvmfs", "pmix"]
    assert found.found["mpich"].mpi == "mpich"
    assert found.found["openmpi"].mpi == "openmpi"
