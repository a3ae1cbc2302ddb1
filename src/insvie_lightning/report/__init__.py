"""One self-contained HTML page out of a run or a data set.

Everything shown comes from outside and is escaped; the page loads nothing. Nothing here imports torch.
"""
