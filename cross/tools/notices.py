"""Prints the licences of everything that is linked into edgepush for a target: each text once, after those it is of.

Usage: notices.py TARGET FOLDER=NAME…, with the folders of what is no crate, such as the C library's
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
FILE_NAME = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
APACHE = "Apache License, Version 2.0: see /usr/share/common-licenses/Apache-2.0\n"


def cargo(*arguments):
    command = ["cargo", *arguments, "--locked", "--manifest-path", str(TOP / "Cargo.toml")]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def linked_crates(target):
    """Names and folders of the crates in the program; what only runs while it is built is not in it."""
    tree = cargo("tree", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}", "--target", target)
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    for package in json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", target))["packages"]:
        key = (package["name"], "v" + package["version"])
        if package["source"] and key in linked:
            yield f"{key[0]} {package['version']} ({package['license']})", pathlib.Path(package["manifest_path"]).parent


def texts(folder):
    """The licence files of a folder; Debian has the long one already."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and FILE_NAME.search(path.name) and path.suffix not in {".rs", ".py"}:
            text = path.read_text(errors="replace").strip() + "\n"
            yield APACHE if "Apache License" in text[:200] and "TERMS AND CONDITIONS" in text else text


def main(target, others):
    owners = collections.defaultdict(list)
    folders = dict(linked_crates(target))
    if len(folders) < 50:
        sys.exit(f"only {len(folders)} crates found")
    folders.update((name, pathlib.Path(folder)) for folder, name in (other.split("=") for other in others))
    for name, folder in sorted(folders.items()):
        found = list(texts(folder))
        for text in found or ["The source has no text of it; the licence above, in its usual words.\n"]:
            owners[text].append(name)
    print("What is linked into edgepush, and under which terms. Besides: SQLite, which is in the public domain, and the")
    print("standard library of Rust (MIT OR Apache-2.0), copyright the contributors of the Rust project.")
    for text, names in sorted(owners.items(), key=lambda item: item[1]):
        print("\n" + "-" * 80 + "\n" + "\n".join(names) + "\n\n" + text, end="")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
