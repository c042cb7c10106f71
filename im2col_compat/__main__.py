"""``python -m im2col_compat``: what a bug report needs."""

import platform
import warnings

from im2col_compat import __version__, backend, backends, features, kernels, lowlevel


def report():
    """The lines that ``python -m im2col_compat`` prints."""
    torch = features.torch
    lines = [
        ("im2col_compat", __version__),
        ("Python", "{} {}".format(platform.python_implementation(), platform.python_version())),
        ("platform", platform.platform()),
        ("NumPy", features.np.__version__),
        ("PyTorch", features.torch_missing if torch is None else torch.__version__),
        ("C library", lowlevel.missing or "built with {}, cffi {}".format(lowlevel.compiler(), _cffi())),
    ]
    for name in backends.NAMES:
        lines.append(("engine {!r}".format(str(name)), backends.why_missing(name) or "available"))
    lines.append(("engine chosen", _chosen()))
    lines.append(("C kernels", lowlevel.missing or kernels.LEVELS[kernels.level()]))
    lines.append(("threads", features.threads()))
    return ["{:<17}{}".format(name + ":", value) for name, value in lines]


def _cffi():
    import _cffi_backend

    return _cffi_backend.__version__


def _chosen():
    kind = "NumPy array" if features.torch is None else "CPU tensor"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it would say stands in the lines above
            backend()
        if backends.forced():
            return "{}, forced by use_backend or {}".format(backend(), backends.VARIABLE)
        return "{}, the first available one that serves a float32 {}".format(backend(), kind)
    except (RuntimeError, ValueError) as error:
        return "none: {}".format(error)


if __name__ == "__main__":
    print("\n".join(report()))
