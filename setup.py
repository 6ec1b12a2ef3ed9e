"""Packaging of GenieRay: three import packages, one command (`genie-ray`)."""

from setuptools import find_packages, setup

ATARI = ["ale-py>=0.12"]
FID: list[str] = []  # torchmetrics computes it; the field's weights are one TorchScript file (see docs/results.md)
HUB = ["huggingface_hub>=2.0"]
MLFLOW = ["mlflow-skinny>=3.17"]  # the client alone: mlflow itself refuses the pyarrow that we use
ONNX = ["onnx>=1.20", "onnxruntime>=1.23", "onnxscript>=0.6"]
VIDEO = ["av>=14"]  # PyAV: reads and writes mp4
SERVERS = ["alembic>=1.13", "moto[server]>=5.1"]  # for tests; with both, MLflow's client brings its server
TEST = ["duckdb>=1.2", "playwright>=1.50", "psutil>=6", "pytest>=8", "pytest-xdist>=3.6", *SERVERS]
DEV = ["mypy>=1.15", "ruff>=0.11", "types-PyYAML", *TEST, *ATARI, *HUB, *MLFLOW, *ONNX, *VIDEO]

setup(
    name="genie-ray",
    version="0.1.0",
    description="World models that learn games by exploring them, on Ray",
    license="Apache-2.0",
    python_requires=">=3.11",
    classifiers=[  # tried; docs/reliability.md says how
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.13",
        "Operating System :: POSIX :: Linux",
    ],
    packages=find_packages(include=["genie_ray*", "policies*", "world_model*"]),
    package_data={
        "genie_ray": [
            "py.typed",
            "games/*.csv",
            "games/*.yaml",
            "*/templates/*.jinja",
            "base/*.css",
            "web/*.html",
            "web/*.css",
            "web/*.js",
            "web/coinrun/**/*",
            "web/hero/**/*",
        ],
        "policies": ["py.typed"],
        "world_model": ["py.typed"],
    },
    install_requires=[
        "cffi>=1.17",  # of procgen, whose wheel pip refuses: genie_ray/games/procgen.py
        "torch>=2.7",
        "ray[rllib,train,tune,serve]>=2.60,<2.61",  # the one that policies/ray_internals.py is tested with
        "stable-retro>=1.0",
        "gymnasium>=1.1",
        "einops>=0.8",
        "numpy>=2.0",
        "pandas>=2.2",
        "torchmetrics>=1.7",
        "pyarrow>=20",
        "imageio>=2.37",
        "jinja2>=3.1",
        "matplotlib>=3.10",
        "opencv-python-headless>=4.11",
        "pydantic>=2.11",
        "PyYAML>=6",
        "rich>=14",
        "safetensors>=0.5",
        "tensorboard>=2.19",
        "typer>=0.15",
        "vector-quantize-pytorch>=1.22",
    ],
    extras_require={"atari": ATARI, "fid": FID, "hub": HUB, "mlflow": MLFLOW, "onnx": ONNX, "video": VIDEO, "dev": DEV},
    entry_points={"console_scripts": ["genie-ray = genie_ray.cli:main"]},
)
