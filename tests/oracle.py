from helpers.oracle import *  # noqa: F401,F403
