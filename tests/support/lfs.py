"""A stand-in for Lustre's `lfs`: writes down what it is asked, and does what can be done anywhere.

It makes the file that `setstripe` and `mirror create` make, and shows a layout in the words of the
real one. Whatever it does not know from the manual pages it refuses, as the real one would.
"""

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """#!{python}
import json, os, sys, time
arguments = sys.argv[1:]
path = arguments[-1]
note = {{"arguments": arguments}}
if os.path.exists(path):
    note["size"] = os.path.getsize(path)
with open({record!r}, "a") as record:
    record.write(json.dumps(note) + "\\n")
known = {{"setstripe": "cSip", "mirror create": "NcSip", "mirror resync": "", "getstripe": "y",
         "ladvise": "abse"}}
words = arguments[:2] if arguments[0] == "mirror" else arguments[:1]
verb = " ".join(words)
options = [word for word in arguments if word[0] == "-" and not word[1:].isdigit()]
letters = [option.lstrip("-")[0] for option in options]
if verb not in known or not set(letters) <= set(known[verb]):
    sys.exit("lfs: invalid option")
{behaviour}
if verb in ("setstripe", "mirror create"):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
elif verb == "getstripe":
    print(open({told!r}).read())
"""
PLAIN = """lmm_stripe_count:  4
lmm_stripe_size:   1048576
lmm_pattern:       raid0
lmm_layout_gen:    0
lmm_stripe_offset: 2
lmm_pool:          flash
lmm_objects:
      - l_ost_idx: 2
        l_fid:     0x100020000:0x2:0x0
"""
MIRRORED = """  lcm_layout_gen:    2
  lcm_mirror_count:  2
  lcm_entry_count:   2
component0:
  - lcme_id:             65537
    lcme_mirror_id:      1
    lcme_flags:          init
    lcme_extent.e_start: 0
    lcme_extent.e_end:   EOF
    sub_layout:
      lmm_stripe_count:  2
      lmm_stripe_size:   4194304
      lmm_pattern:       raid0
      lmm_pool:          flash
component1:
  - lcme_id:             131074
    lcme_mirror_id:      2
    lcme_flags:          init,stale
    sub_layout:
      lmm_stripe_count:  6
      lmm_stripe_size:   1048576
      lmm_pool:          archive
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call; `size` is that of the file it was about, None where there was none."""

    arguments: list[str]
    size: int | None


class FakeLfs:
    """One program, for one test. `behaviour` is Python that runs before it does anything."""

    def __init__(self, directory: Path, *, told: str = PLAIN, behaviour: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "lfs"
        self._record = directory / "asked"
        said = directory / "told"
        said.write_text(told)
        self.path.write_text(
            _PROGRAM.format(
                python=sys.executable,
                record=str(self._record),
                behaviour=behaviour,
                told=str(said),
            )
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    @property
    def asked(self) -> list[Asked]:
        if not self._record.exists():
            return []
        notes = map(json.loads, self._record.read_text().splitlines())
        return [Asked(note["arguments"], note.get("size")) for note in notes]

    @property
    def verbs(self) -> list[str]:
        return [
            " ".join(each.arguments[: 2 if each.arguments[0] == "mirror" else 1])
            for each in self.asked
        ]
