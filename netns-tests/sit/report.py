"""What the differential test has to say at its end."""

from collections import Counter

seed = 0
tunnels = 0
cases = 0
unintended = 0
intended: Counter[str] = Counter()
