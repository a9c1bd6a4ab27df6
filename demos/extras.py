"""What each extra of the package adds to an installation, in MB: `python -m demos.extras`.

pip resolves the package without and with each extra, at the versions of constraints.txt, and
downloads the wheels (into FOLDER, which may be kept for the next time). A row counts what is added
beyond the plain installation: the wheels as they are downloaded, and their files as installed.
With `--cuda` it also measures what torch brings if PyPI alone is asked, some gigabytes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN_NAME = "incontext-seg"
TORCH = "torch"
MB = 1e6

Package = tuple[str, str]  # name, version


def run_pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run pip in this environment's Python; what it prints is shown only if it fails."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet"]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise SystemExit(process.stderr)


def resolve(requirement: str, environment: dict[str, str] | None = None) -> set[Package]:
    """Return the packages that an installation into an empty environment would have."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        run_pip(
            "install", "--dry-run", "--ignore-installed", "--report", str(report),
            "-c", "constraints.txt", requirement, environment=environment,
        )  # fmt: skip
        entries = json.loads(report.read_text())["install"]
    packages = {(entry["metadata"]["name"], entry["metadata"]["version"]) for entry in entries}
    return {(name, version) for name, version in packages if name != OWN_NAME}


def weigh(
    package: Package, folder: Path, environment: dict[str, str] | None = None
) -> tuple[int, int]:
    """Return the bytes of a package's wheel, and those of its files once installed."""
    place = folder / "-".join(package)
    if not list(place.glob("*.whl")):
        place.mkdir(parents=True, exist_ok=True)
        requirement = "==".join(package)
        # Wheels of a few old packages have to be built; that they are.
        arguments = ("wheel", "--no-deps", "-w", str(place), requirement)
        run_pip(*arguments, environment=environment)
    [wheel] = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel.stat().st_size, sum(entry.file_size for entry in archive.infolist())


def row(
    name: str, packages: set[Package], folder: Path, environment: dict[str, str] | None = None
) -> str:
    """Return a row of the table."""
    sizes = [weigh(package, folder, environment) for package in sorted(packages)]
    download, files = (sum(size[i] for size in sizes) / MB for i in (0, 1))
    return f"| {name} | {len(packages)} | {download:.0f} | {files:.0f} |"


def measure(folder: Path, *, cuda: bool) -> None:
    """Print the table."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    print("| | packages | download, MB | installed, MB |\n|---|---|---|---|", flush=True)
    base = resolve(".")
    torch = {package for package in base if package[0] == TORCH}
    print(row("plain, without torch", base - torch, folder))
    print(row(f"torch {min(torch)[1]}", torch, folder), flush=True)
    if cuda:
        environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
        packages = {
            package
            for package in resolve(".", environment)
            if package not in base and package[0] not in {name for name, _ in base - torch}
        }
        print(row("torch of PyPI, with CUDA", packages, folder, environment), flush=True)
    for extra in project["optional-dependencies"]:
        if extra != "dev":
            print(row(f"`{extra}`", resolve(f".[{extra}]") - base, folder), flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where wheels are kept")
    parser.add_argument("--cuda", action="store_true", help="measure CUDA's packages too")
    options = parser.parse_args()
    if options.folder:
        measure(options.folder, cuda=options.cuda)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), cuda=options.cuda)


if __name__ == "__main__":
    main()
