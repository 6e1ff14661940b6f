"""The global options, as given on the command line: they may stand before or after any command."""

from dataclasses import dataclass, fields
from typing import Annotated

import typer

GLOBAL_PANEL = "Global options, anywhere on the line"
STORAGE_PANEL = "Storage options, anywhere on the line"


def _option(
    *names: str, help: str, metavar: str | None = None, panel: str = GLOBAL_PANEL
) -> typer.models.OptionInfo:
    option = typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel)
    assert isinstance(option, typer.models.OptionInfo)
    return option


@dataclass(frozen=True, kw_only=True)
class GlobalOptions:
    """None, or False, where an option was not given."""

    repository: Annotated[
        str | None,
        _option(
            "--repository",
            "-r",
            metavar="PATH",
            help="The repository: a directory, or s3://bucket/prefix. [HOLDFAST_REPOSITORY]",
        ),
    ] = None
    key_file: Annotated[
        str | None,
        _option("--key-file", metavar="FILE", help="The key file that opens it. [HOLDFAST_KEY_FILE]"),
    ] = None
    passphrase_file: Annotated[
        str | None,
        _option(
            "--passphrase-file",
            metavar="FILE",
            help="A file that holds the passphrase. [HOLDFAST_PASSPHRASE_FILE]",
        ),
    ] = None
    passphrase_command: Annotated[
        str | None,
        _option(
            "--passphrase-command",
            metavar="CMD",
            help="A command that prints the passphrase. [HOLDFAST_PASSPHRASE_COMMAND]",
        ),
    ] = None
    config: Annotated[
        str | None,
        _option(
            "--config",
            metavar="FILE",
            help="Settings; by default ./holdfast.toml or ~/.config/holdfast/holdfast.toml.",
        ),
    ] = None
    cache_dir: Annotated[
        str | None,
        _option(
            "--cache-dir",
            metavar="DIR",
            help="What can be made again; ~/.cache/holdfast. [HOLDFAST_CACHE_DIR]",
        ),
    ] = None
    state_dir: Annotated[
        str | None,
        _option(
            "--state-dir",
            metavar="DIR",
            help="What this machine remembers; ~/.local/state/holdfast. [HOLDFAST_STATE_DIR]",
        ),
    ] = None
    json: Annotated[bool, _option("--json", help="Answer with one JSON document on stdout.")] = False
    events: Annotated[bool, _option("--events", help="Write stderr as JSON, one event a line.")] = False
    quiet: Annotated[bool, _option("--quiet", "-q", help="No progress, no summary, no notes.")] = False
    limit_upload: Annotated[
        str | None,
        _option(
            "--limit-upload",
            metavar="RATE",
            panel=STORAGE_PANEL,
            help="Send at most so many bytes per second: 500K, 20M. [HOLDFAST_LIMIT_UPLOAD]",
        ),
    ] = None
    limit_download: Annotated[
        str | None,
        _option(
            "--limit-download",
            metavar="RATE",
            panel=STORAGE_PANEL,
            help="Read at most so many bytes per second. [HOLDFAST_LIMIT_DOWNLOAD]",
        ),
    ] = None
    s3_endpoint: Annotated[
        str | None,
        _option(
            "--s3-endpoint",
            metavar="URL",
            panel=STORAGE_PANEL,
            help="The S3 server, unless it is that of AWS. [HOLDFAST_S3_ENDPOINT, AWS_ENDPOINT_URL]",
        ),
    ] = None
    s3_region: Annotated[
        str | None,
        _option(
            "--s3-region",
            metavar="NAME",
            panel=STORAGE_PANEL,
            help="The region of the bucket, like eu-central-1. [HOLDFAST_S3_REGION, AWS_REGION]",
        ),
    ] = None
    s3_ca_bundle: Annotated[
        str | None,
        _option(
            "--s3-ca-bundle",
            metavar="FILE",
            panel=STORAGE_PANEL,
            help="The certificates of your own authority, in PEM. [HOLDFAST_S3_CA_BUNDLE, AWS_CA_BUNDLE]",
        ),
    ] = None
    s3_storage_class: Annotated[
        str | None,
        _option(
            "--s3-storage-class",
            metavar="CLASS",
            panel=STORAGE_PANEL,
            help="What new objects are stored as, like STANDARD_IA. [HOLDFAST_S3_STORAGE_CLASS]",
        ),
    ] = None
    s3_encryption: Annotated[
        str | None,
        _option(
            "--s3-encryption",
            metavar="KIND",
            panel=STORAGE_PANEL,
            help="Let S3 encrypt as well, on top of holdfast: AES256 or aws:kms. [HOLDFAST_S3_ENCRYPTION]",
        ),
    ] = None
    s3_kms: Annotated[
        str | None,
        _option(
            "--s3-kms",
            metavar="ID",
            panel=STORAGE_PANEL,
            help="With aws:kms: which key, by its id or ARN, unless the bucket's own. [HOLDFAST_S3_KMS]",
        ),
    ] = None

    def overridden_by(self, later: "GlobalOptions") -> "GlobalOptions":
        """Return these options with those that `later` has in their place."""
        names = (each.name for each in fields(self))
        return GlobalOptions(**{name: getattr(later, name) or getattr(self, name) for name in names})
