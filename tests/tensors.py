from helpers.tensors import *  # noqa: F401,F403
