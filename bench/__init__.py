"""`make bench`: the gateway, its peers and the floors under the same load in one run. What is measured, and how the
numbers are to be read, is in docs/performance.md, which this package writes."""
