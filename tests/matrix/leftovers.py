"""Fails if an uninstalled im2col_compat has left anything in this environment. Runs on any Python."""

import glob
import os
import sys
import sysconfig

paths = sysconfig.get_paths()
left = []
for place in {paths["purelib"], paths["platlib"], paths["scripts"], paths["data"]}:
    left += glob.glob(os.path.join(place, "*im2col*"))
if left:
    sys.exit("left after uninstalling: {}".format(sorted(left)))
