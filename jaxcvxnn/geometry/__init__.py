"""Arrangements of the planes x_i'u = 0, on the host: directions, activation patterns, cones."""

from .patterns import (
    LowRankGuarantee as LowRankGuarantee,
    convolutional_patterns as convolutional_patterns,
    count_patterns as count_patterns,
    low_rank_guarantee as low_rank_guarantee,
    low_rank_patterns as low_rank_patterns,
    network_patterns as network_patterns,
    sample_patterns as sample_patterns,
    sample_size as sample_size,
    sign_patterns as sign_patterns,
    solid_angles as solid_angles,
    stack_patches as stack_patches,
)
