"""What a reducer is, the reducers that make an exposure and those that collect results.

A `PixelReducer` folds the cells' results into planes, one *patch* after the other in the order of
the cells' indices, over a region of the output: ``begin``, ``fold`` for every patch, ``finish``.
It never sees more than the region, so the same three functions serve any tile size.

A `Collector` gets all results at once.

Variance of overlaps. Where n results cover a pixel, with weights w (1 in an average), variances v
and sigma = sqrt(v), the reducers that combine offer three rules by name:

- ``"mean"``: sum(w v) / sum(w), the rule of LSST's task;
- ``"correlated"``: (sum(w sigma) / sum(w))**2, exact where the results are made from the same input
  pixels, as those of overlapping cells are;
- ``"independent"``: sum(w**2 v) / sum(w)**2, for results with noise of their own.
"""
