"""The effect of restoring on recognisers: classifiers, detectors, embedders of persons."""
