"""What hatchling calls to make a wheel or an editable installation: compiles the C code, or writes why it did not.

The environment variable TOWERS_BUILD: "require" makes a failed compilation an error, for those who publish wheels;
"skip" compiles nothing.
"""

import os
import runpy
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

native = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("native.py"))))
INSIDE = Path("towers/kernels/cpu")


class NativeBuildHook(BuildHookInterface):
    """Puts the library and the report of its build into a wheel; beside the sources for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. A wheel's library lies in a folder of its own, so that an editable installation keeps its own."""
        wanted = os.environ.get("TOWERS_BUILD", "")
        if wanted not in ("", "require", "skip"):
            raise ValueError(f"TOWERS_BUILD is {wanted!r}; expected require or skip, or leave it unset")
        self.folder = native.CPU if version == "editable" else Path(tempfile.mkdtemp(prefix="towers-"))
        try:
            report = "left out: TOWERS_BUILD is skip" if wanted == "skip" else native.build(self.folder)
        except native.BuildError as error:
            if wanted == "require":
                raise
            report = f"left out: {error}"
            self.app.display_warning(f"The C code was {report}. towers works without it, more slowly.")
        if report.startswith("left out"):
            native.remove(self.folder)
        native.write_report(self.folder, report)
        files = [path for path in native.results(self.folder) if path.exists()]
        if len(files) > 1:
            build_data["pure_python"], build_data["tag"] = False, f"py3-none-{native.platform_tag()}"
        if version != "editable":
            build_data["force_include"] |= {str(path): str(INSIDE / path.name) for path in files}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what now lies in the wheel."""
        if version != "editable":
            shutil.rmtree(self.folder)
