from helpers.problems import *  # noqa: F401,F403
