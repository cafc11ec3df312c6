#!/usr/bin/env python3
"""clang-format and clang-tidy over the sources that git knows or would add.

clang-format checks every C++ and CUDA file. clang-tidy reads build/compile_commands.json, by default only for sources
that do not use LibTorch (a torch source takes it half a minute); --full takes all. A source that was clean is skipped
until it, a header of ours or .clang-tidy changes.
"""

import argparse
import concurrent.futures
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The release that formatted the tree: another one breaks lines elsewhere.
RELEASE = "14"


def tool(name):
    for candidate in (f"{name}-{RELEASE}", name):
        if shutil.which(candidate):
            return candidate
    sys.exit(f"lint: {name} is missing; install it: sudo apt-get install {name}-{RELEASE}")


def sources():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        names = listed.stdout.split("\n")
    else:  # an unpacked archive without git: every file outside hidden and built folders
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in names if not re.match(r"(\.|build|data/|runs/)", name)]
    return sorted(ROOT / name for name in names if name.endswith((".cpp", ".h", ".cu", ".cuh")) and (ROOT / name).is_file())


def run_format(files, rewrite):
    mode = ["-i"] if rewrite else ["--dry-run", "-Werror"]
    return subprocess.run([tool("clang-format"), *mode, *map(str, files)], cwd=ROOT).returncode == 0


def clang_command(command, folder):
    """The command with a copy of the header that GCC precompiled: beside the original lies a .gch, which clang would
    take and cannot read."""
    header = re.search(r"-include (\S+/cmake_pch\.hxx)", command)
    if header:
        copy = folder / "cmake_pch.hxx"
        shutil.copyfile(header[1], copy)
        command = command.replace(header[0], f"-include {copy}")
    return re.sub(r"\s-(Winvalid-pch|fpch-preprocess|Wno-restrict|Wno-subobject-linkage)\b", "", command)


def tidy_database(build, folder, full):
    """Writes a compile_commands.json that clang-tidy can read; returns the sources in it."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = json.loads((build / "compile_commands.json").read_text())
    kept = []
    for entry in entries:
        path = Path(entry["file"])
        ours = path.is_relative_to(ROOT) and not path.is_relative_to(build)
        uses_torch = "cmake_pch" in entry["command"] or "/torch/" in entry["command"]
        if ours and path.suffix == ".cpp" and (full or not uses_torch):
            kept.append({**entry, "command": clang_command(entry["command"], folder)})
    (folder / "compile_commands.json").write_text(json.dumps(kept))
    return sorted({Path(entry["file"]) for entry in kept})


def run_tidy(build, jobs, full):
    folder = build / "tidy"
    files = tidy_database(build, folder, full)
    common = max(path.stat().st_mtime for path in [ROOT / ".clang-tidy", *sources()] if path.suffix != ".cpp")
    command = [tool("clang-tidy"), "-p", str(folder), "--quiet"]

    def check(path):
        stamp = folder / (str(path.relative_to(ROOT)).replace("/", "_") + ".clean")
        if stamp.exists() and stamp.stat().st_mtime > max(common, path.stat().st_mtime):
            return True
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=ROOT)
        output = done.stdout + done.stderr
        clean = done.returncode == 0 and "Error parsing" not in output  # a broken .clang-tidy is skipped with exit 0
        if clean:
            stamp.touch()
        else:
            print(output, end="", flush=True)
        return clean

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        clean = list(pool.map(check, files))
    print(f"clang-tidy: {sum(clean)} of {len(files)} sources clean", flush=True)
    return all(clean)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="a configured build folder")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="clang-tidy on the torch sources too")
    parser.add_argument("--format", action="store_true", help="rewrite the files as clang-format wants them, nothing else")
    args = parser.parse_args()
    files = sources()
    if args.format:
        return 0 if run_format(files, rewrite=True) else 1
    formatted = run_format(files, rewrite=False)
    print(f"clang-format: {len(files)} files {'are' if formatted else 'are NOT all'} formatted", flush=True)
    tidy = run_tidy(args.build.resolve(), args.jobs, args.full)
    return 0 if formatted and tidy else 1


if __name__ == "__main__":
    sys.exit(main())
