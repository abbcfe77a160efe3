"""What each step does. Every one of them may be killed at any point and run again: results appear by a rename or are
declared by a stamp that is written last."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from infra.setup import artifacts, packages, paths, survey
from infra.setup.plan import Step
from infra.setup.programs import Programs

# The interpreter is the machine's: a downloaded one would be a second, unlisted source.
UV_SETTINGS: Final[Mapping[str, str]] = {
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_PROGRESS": "1",
    "UV_HTTP_TIMEOUT": "120",
    "UV_NO_CONFIG": "1",
}
# What a source distribution is built with: the only code that the requirement files do not list.
BUILD_CONSTRAINTS: Final = Path(__file__).with_name("build-constraints.txt")

Report = Callable[[str], None]
Action = Callable[[Report], None]


@dataclass(frozen=True, slots=True)
class Doer:
    """Binds steps to what they need: how to run programs, and what stands before a command that needs root."""

    programs: Programs
    wanted_packages: tuple[str, ...]
    root_prefix: tuple[str, ...]

    def action(self, step: Step) -> Action:
        """Return what does `step`."""
        if step.name in survey.ENVIRONMENTS:
            return partial(self.environment, step)
        if step.name.startswith("get-"):
            return partial(self.artifacts, step.name.removeprefix("get-"))
        actions: dict[str, Action] = {
            "packages": self.packages,
            "tools": partial(self.tools, step),
            "project": partial(self.project, step),
            "trino": partial(self.trino, step),
            "kafka": self.kafka,
            "flink-jars": self.flink_jars,
        }
        return actions[step.name]

    def packages(self, report: Report) -> None:
        """Install the missing Debian packages; their services stay off."""
        has_systemd = Path("/run/systemd/system").exists()
        for command in packages.install_commands(self.wanted_packages, self.root_prefix, has_systemd):
            self.programs.run("packages", command, report)

    def tools(self, step: Step, report: Report) -> None:
        """Make the environment that makes the others, with nothing but the standard library and pip."""
        environment = paths.tools_env()
        self.programs.run("tools", (sys.executable, "-m", "venv", "--clear", environment), report)
        pip = (paths.tools_python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-input")
        self.programs.run(
            "tools", (*pip, "--no-deps", "--require-hashes", "-r", survey.requirements_file("tools")), report
        )
        _write_atomically(environment / survey.STAMP_NAME, step.stamp)

    def environment(self, step: Step, report: Report) -> None:
        """Make one environment hold exactly its requirement file."""
        environment = survey.ENVIRONMENTS[step.name]
        (environment / survey.STAMP_NAME).unlink(missing_ok=True)
        self._uv(step.name, report, "venv", "--allow-existing", "--python", sys.executable, environment)
        self._uv(
            step.name,
            report,
            "pip",
            "sync",
            "--require-hashes",
            "--build-constraints",
            BUILD_CONSTRAINTS,
            "--python",
            paths.python_of(environment),
            survey.requirements_file(step.name),
        )
        _write_atomically(environment / survey.STAMP_NAME, step.stamp)

    def project(self, step: Step, report: Report) -> None:
        """Put this tree, editable, into the lake environment; this makes the command `fieldlake`."""
        python = paths.lake_python()
        self._uv(
            "project", report, "pip", "install", "--no-deps", "--no-build-isolation", "--python", python, "-e", "."
        )
        _write_atomically(paths.lake_env() / survey.PROJECT_STAMP_NAME, step.stamp)

    def artifacts(self, group: str, report: Report) -> None:
        """Download one group of artifacts into the cache."""

        def on_line(line: str) -> None:
            done, _, total = line.partition(" ")
            if done.isdigit() and total.isdigit():
                report(f"{int(done) * 100 // int(total)} % of {int(total) / 1e6:.0f} MB")

        command = (paths.tools_python(), "-m", "infra.setup.fetch", group, paths.artifacts_dir())
        self.programs.run(f"get-{group}", command, on_line, shown_lines=1)

    def trino(self, step: Step, report: Report) -> None:
        """Unpack Trino and keep the plugins in use.

        1. unpack whole into a scratch folder (its plugins share files by hard links)
        2. cut and stamp there
        3. rename into place
        4. drop the tarball. Crash before 3: start anew; between 3 and 4: it only costs room.
        """
        tarball = paths.artifacts_dir() / artifacts.load()["trino"][0].filename
        home = paths.trino_home()
        with tempfile.TemporaryDirectory(prefix=paths.SCRATCH_PREFIX, dir=paths.cache_dir()) as scratch:
            report("unpacking")
            self.programs.run("trino", ("tar", "-xzf", tarball, "-C", scratch), report)  # Step 1.
            unpacked = Path(scratch, home.name)
            for plugin in (unpacked / "plugin").iterdir():
                if plugin.name not in survey.TRINO_PLUGINS:
                    shutil.rmtree(plugin)
            _write_atomically(unpacked / survey.STAMP_NAME, step.stamp)  # Step 2.
            if home.exists():
                home.rename(Path(scratch, "replaced"))
            unpacked.rename(home)  # Step 3.
        tarball.unlink()  # Step 4.

    def kafka(self, report: Report) -> None:
        """Gather Kafka's class path in one folder, as links to the downloaded jars."""
        home = paths.kafka_home()
        with tempfile.TemporaryDirectory(prefix=paths.SCRATCH_PREFIX, dir=paths.cache_dir()) as scratch:
            built = Path(scratch, home.name)
            libs = built / paths.kafka_libs_dir().name
            libs.mkdir(parents=True)
            for artifact in artifacts.load()["kafka"]:
                (libs / artifact.filename).symlink_to(paths.artifacts_dir() / artifact.filename)
            if home.exists():
                home.rename(Path(scratch, "replaced"))
            built.rename(home)
        report("linked")

    def flink_jars(self, report: Report) -> None:
        """Copy the jars that Flink needs in its `lib/`; under their final name only once they are whole."""
        for source, target in survey.flink_jars():
            if not survey.is_copied(source, target):
                report(target.name)
                partial_copy = target.with_name(f"{target.name}.partial")  # no jar to Flink's class path
                shutil.copyfile(source, partial_copy)
                partial_copy.rename(target)

    def _uv(self, step: str, report: Report, *arguments: str | Path) -> None:
        uv = paths.tools_env() / "bin" / "uv"
        self.programs.run(step, (uv, *arguments), report, UV_SETTINGS)


def remove_leftovers() -> None:
    """Delete what killed runs left half done. Only while no other set-up uses the cache."""
    for folder in (paths.cache_dir(), paths.artifacts_dir()):
        for scratch in folder.glob(f"{paths.SCRATCH_PREFIX}*"):
            shutil.rmtree(scratch)


def _write_atomically(file: Path, text: str) -> None:
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.rename(file)
