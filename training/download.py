"""Downloads a recording of the Neural Latents Benchmark from the DANDI archive.

bazel run //training:download -- --dandiset=000128 --output=recordings --split=train

A download that was interrupted continues when it is run again; files that are already here are
verified and not fetched.
"""

from pathlib import Path

from absl import flags

from cortex import cli
from training.archive.assets import SPLITS
from training.archive.dandi_client import PUBLIC_ARCHIVE
from training.archive.dandi_download import DownloadConfig, download
from training.archive.dandisets import DANDISETS
from training.archive.download_bar import download_bar

DANDISET = flags.DEFINE_string(
    "dandiset",
    None,
    "which: " + ", ".join(f"{each.identifier} {each.name}" for each in DANDISETS),
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "folder to put it in", required=True)
SPLIT = flags.DEFINE_enum("split", "all", SPLITS, "train has behaviour, test has spikes only")
ASSET = flags.DEFINE_string("asset", "*", "glob that a file's path or name must match")
ARCHIVE = flags.DEFINE_string("archive", PUBLIC_ARCHIVE, "address of the archive's API")


def main(argv: list[str]) -> None:
    """Downloads, verifies and lists the files."""
    cli.no_arguments(argv)
    config = DownloadConfig(
        dandiset=DANDISET.value,
        output=Path(OUTPUT.value),
        split=SPLIT.value,
        pattern=ASSET.value,
        archive=ARCHIVE.value,
    )
    with download_bar() as on_progress:
        files = download(config, on_progress)
    for file in files:
        what = "fetched" if file.fetched else "already here"
        print(f"{file.path}: {file.size / 1e6:.1f} MB, {what}, SHA-256 verified")


if __name__ == "__main__":
    cli.run(main)
