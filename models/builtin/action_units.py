"""Handles on the face and what each action does to them, millimetres at full activation.

`ACTIONS[name] = (moves, sided)`: a sided action is written for the left side and mirrored for the right; x
points away from the midline on either side.
"""

Move = tuple[float, float, float]

HANDLES: dict[str, tuple[float, float, float]] = {
    "brow_centre": (0, 20, 98.6), "brow_inner": (13, 21, 97.8), "brow_mid": (31, 24, 92.5),
    "brow_outer": (51, 19, 78),
    "forehead_centre": (0, 44, 93), "forehead_inner": (22, 45, 90), "forehead_outer": (46, 42, 76),
    "forehead_top": (25, 66, 79),
    "lid_fold": (32, 13.5, 90.3), "lid_fold_outer": (48, 10, 82.5), "nasion": (0, 3, 98),
    "eye_corner_inner": (13, -2, 87), "temple": (64, 12, 55),
    "under_eye": (31, -14, 85.4), "under_eye_outer": (47, -9, 77), "crow": (57, -1, 68),
    "nose_side": (11, -14, 99), "nose_tip": (0, -34, 121.8), "ala": (17.5, -37, 103),
    "columella": (0, -47, 107.5),
    "nose_cheek": (20, -26, 92),
    "cheek_apple": (34, -32, 88.5), "cheek_high": (48, -20, 79), "cheekbone_side": (65, -18, 58),
    "nasolabial": (26, -50, 93),
    "cheek_mid": (45, -52, 79), "cheek_back": (64, -50, 47), "cheek_low": (42, -75, 72),
    "jaw_side": (60, -76, 38),
    "philtrum": (0, -54, 106.4), "upper_lip_side": (14, -54, 102.5),
    "upper_lip_mid": (0, -64, 109.4), "upper_lip_quarter": (10, -63.8, 107),
    "upper_lip_near_corner": (19, -67.5, 100),
    "mouth_corner": (26.5, -71.5, 92.4),
    "lower_lip_mid": (0, -76, 107.4), "lower_lip_quarter": (10, -75.6, 105.2),
    "lower_lip_near_corner": (19, -73.4, 98),
    "below_lip_mid": (0, -88, 100.4), "below_lip_side": (14, -87, 97.8), "below_corner": (27, -83, 90.8),
    "chin": (0, -104, 100.4), "chin_side": (18, -103, 94.5), "jaw_line": (34, -104, 72),
    "jaw_line_back": (52, -92, 48),
    "under_chin": (0, -118, 72), "under_jaw": (30, -115, 48), "throat": (0, -130, 46),
    "throat_side": (38, -128, 28),
}  # fmt: skip

JAW_SHARE: dict[str, float] = {
    "lower_lip_mid": 1.0, "lower_lip_quarter": 1.0, "lower_lip_near_corner": 0.82, "mouth_corner": 0.42,
    "upper_lip_near_corner": 0.14, "upper_lip_quarter": 0.02,
    "below_lip_mid": 1.0, "below_lip_side": 1.0, "below_corner": 0.80, "chin": 1.0, "chin_side": 1.0,
    "jaw_line": 0.95,
    "jaw_line_back": 0.80, "cheek_low": 0.58, "cheek_mid": 0.24, "cheek_back": 0.30, "jaw_side": 0.62,
    "nasolabial": 0.08,
    "under_chin": 0.80, "under_jaw": 0.56, "throat": 0.40, "throat_side": 0.28,
}  # fmt: skip

# The same with the lips kept closed over an open jaw (jawOpen and mouthClose together), where it differs.
CLOSED_SHARE: dict[str, float] = {
    "upper_lip_mid": 0.28, "upper_lip_quarter": 0.28, "upper_lip_near_corner": 0.29, "mouth_corner": 0.31,
    "lower_lip_mid": 0.32, "lower_lip_quarter": 0.32, "lower_lip_near_corner": 0.32,
    "philtrum": 0.12, "upper_lip_side": 0.13, "nasolabial": 0.10,
    "below_lip_mid": 0.60, "below_lip_side": 0.60, "below_corner": 0.52, "cheek_low": 0.52,
}  # fmt: skip

ACTIONS: dict[str, tuple[dict[str, Move], bool]] = {
    "browDown": ({
        "brow_inner": (-2.5, -6.0, 1.2), "brow_mid": (-1.2, -5.0, 0.5), "brow_outer": (-0.5, -2.5, 0),
        "brow_centre": (0, -2.5, 0.6),
        "forehead_inner": (-0.5, -2.5, 0), "forehead_centre": (0, -1.2, 0), "lid_fold": (-0.5, -3.0, 0.5),
        "nasion": (0, -0.8, 0.3),
        "eye_corner_inner": (0, -0.6, 0.2),
    }, True),
    "browInnerUp": ({
        "brow_inner": (-0.5, 7.0, -0.5), "brow_mid": (0, 3.2, -0.3), "brow_centre": (0, 2.6, -0.2),
        "forehead_inner": (0, 4.5, 0),
        "forehead_centre": (0, 2.2, 0), "forehead_top": (0, 1.5, 0), "lid_fold": (0, 1.2, -0.2),
    }, False),
    "browOuterUp": ({
        "brow_outer": (0.5, 7.0, -1.5), "brow_mid": (0, 5.5, -0.8), "brow_inner": (0, 1.0, 0),
        "forehead_outer": (0, 4.5, -1.0),
        "forehead_inner": (0, 1.5, 0), "forehead_top": (0, 1.0, 0), "lid_fold": (0, 1.6, -0.4),
        "lid_fold_outer": (0, 2.2, -0.6),
        "temple": (0, 1.5, 0),
    }, True),
    "cheekPuff": ({
        "cheek_mid": (7.0, 0, 6.0), "cheek_low": (7.0, -1, 4.5), "nasolabial": (3.0, 0, 5.0),
        "cheek_apple": (1.5, 0.5, 2.0),
        "below_corner": (3.0, -0.5, 4.0), "mouth_corner": (-1.0, 0, 2.5), "upper_lip_side": (0.8, 0, 3.5),
        "upper_lip_near_corner": (0, 0, 2.0),
        "lower_lip_near_corner": (0, 0, 1.8), "cheek_back": (2.5, 0, 1.0), "jaw_line": (1.5, 0, 1.0),
        "below_lip_side": (0.5, 0, 2.0),
        "upper_lip_quarter": (0, 0, 1.5), "lower_lip_quarter": (0, 0, 1.2), "philtrum": (0, 0, 1.0),
    }, False),
    "cheekSquint": ({
        "cheek_high": (0.3, 4.0, 1.2), "cheek_apple": (0.3, 4.2, 2.2), "under_eye": (0, 2.4, 1.0),
        "under_eye_outer": (0, 2.0, 0.7),
        "nasolabial": (0.5, 2.5, 0.8), "crow": (0, 1.2, 0.4), "nose_cheek": (0, 1.5, 0.3),
        "cheek_mid": (0.5, 1.5, 0.8),
    }, True),
    "eyeSquint": ({
        "under_eye": (0, 1.4, 0.6), "under_eye_outer": (-0.3, 1.1, 0.4), "lid_fold": (0, -1.0, 0.2),
        "cheek_high": (0, 1.2, 0.4),
        "cheek_apple": (0, 1.0, 0.5), "crow": (-0.8, 0, 0.2),
    }, True),
    "eyeWide": ({"lid_fold": (0, 1.0, -0.3), "brow_mid": (0, 0.6, 0)}, True),
    "mouthDimple": ({
        "mouth_corner": (4.5, 1.0, -4.0), "upper_lip_near_corner": (2.6, 0.4, -1.6),
        "lower_lip_near_corner": (2.6, 0.4, -1.6),
        "upper_lip_quarter": (1.0, 0, -0.5), "lower_lip_quarter": (1.0, 0, -0.5),
        "nasolabial": (1.5, 1.0, 0.3), "cheek_mid": (1.2, 0.5, 0.8),
        "below_corner": (1.8, 0, -0.8),
    }, True),
    "mouthFrown": ({
        "mouth_corner": (0.5, -7.0, -0.8), "upper_lip_near_corner": (0.4, -3.6, -0.2),
        "lower_lip_near_corner": (0.2, -3.8, 0.2),
        "upper_lip_quarter": (0, -0.9, 0.2), "lower_lip_quarter": (0, -0.8, 0.4),
        "below_corner": (0.5, -4.0, 0.6), "nasolabial": (0, -2.2, -0.3), "cheek_mid": (0, -1.6, -0.3),
        "cheek_low": (0, -1.2, 0.2), "chin_side": (0, 0.8, 0.4),
    }, True),
    "mouthFunnel": ({
        "upper_lip_mid": (0, 2.8, 6.0), "upper_lip_quarter": (-2.0, 2.8, 6.2),
        "upper_lip_near_corner": (-5.0, 1.0, 6.0),
        "mouth_corner": (-8.0, -1.0, 5.0), "lower_lip_mid": (0, -4.2, 5.6),
        "lower_lip_quarter": (-2.0, -4.2, 5.8),
        "lower_lip_near_corner": (-5.2, -2.6, 5.8), "philtrum": (0, 1.0, 2.5),
        "upper_lip_side": (-2.0, 0.8, 2.8), "below_lip_mid": (0, -2.6, 2.4),
        "below_lip_side": (-1.6, -2.4, 2.4), "below_corner": (-4.6, -1.2, 2.6), "nasolabial": (-3.4, 0, 1.6),
        "cheek_mid": (-2.2, 0, 0),
        "cheek_low": (-2.0, -0.5, 0), "chin": (0, -1.5, 0.5), "chin_side": (0, -1.2, 0.4),
    }, False),
    "mouthLowerDown": ({
        "lower_lip_quarter": (1.0, -6.5, 0.4), "lower_lip_near_corner": (1.4, -4.6, 0),
        "lower_lip_mid": (0, -2.4, 0.2),
        "below_lip_side": (0.6, -4.2, 0.6), "below_lip_mid": (0, -1.5, 0.4), "below_corner": (1.0, -3.0, 0),
        "mouth_corner": (0.8, -1.4, -0.3),
        "chin_side": (0, -1.2, 0.2),
    }, True),
    "mouthPress": ({
        "upper_lip_mid": (0, -0.6, -0.7), "upper_lip_quarter": (0.2, -1.5, -1.6),
        "upper_lip_near_corner": (0.4, -0.7, -1.6),
        "lower_lip_mid": (0, 0.6, -0.7), "lower_lip_quarter": (0.2, 1.5, -1.5),
        "lower_lip_near_corner": (0.4, 0.7, -1.5),
        "mouth_corner": (1.6, 0.2, -2.0), "below_lip_side": (0, 0.8, 0.4), "chin_side": (0, 0.8, 0.4),
    }, True),
    "mouthPucker": ({
        "upper_lip_mid": (0, -0.3, 5.6), "upper_lip_quarter": (-3.4, -0.6, 5.8),
        "upper_lip_near_corner": (-7.0, -0.8, 6.6),
        "mouth_corner": (-9.5, -0.2, 6.6), "lower_lip_mid": (0, 0.4, 5.4),
        "lower_lip_quarter": (-3.4, 0.6, 5.6),
        "lower_lip_near_corner": (-7.0, 0.6, 6.4), "philtrum": (0, -0.5, 2.2),
        "upper_lip_side": (-3.0, -0.6, 2.6), "below_lip_mid": (0, 0.8, 1.4),
        "below_lip_side": (-2.4, 0.6, 1.8), "below_corner": (-6.0, 0.3, 3.0),
        "nasolabial": (-4.4, -0.8, 1.8), "cheek_mid": (-3.4, 0, 0),
        "cheek_low": (-3.4, 0, 0.2), "chin": (0, 0.6, 0.6),
    }, False),
    "mouthRollLower": ({
        "lower_lip_mid": (0, 3.2, -3.4), "lower_lip_quarter": (0, 3.0, -3.1),
        "lower_lip_near_corner": (0, 1.5, -1.6),
        "below_lip_mid": (0, 2.0, 0.5), "below_lip_side": (0, 1.8, 0.4), "chin": (0, 1.0, 0.6),
        "chin_side": (0, 0.8, 0.4),
    }, False),
    "mouthRollUpper": ({
        "upper_lip_mid": (0, -2.8, -3.2), "upper_lip_quarter": (0, -2.8, -3.1),
        "upper_lip_near_corner": (0, -1.3, -1.5),
        "philtrum": (0, -1.2, -0.6), "upper_lip_side": (0, -1.2, -0.6),
    }, False),
    "mouthShrugLower": ({
        "lower_lip_mid": (0, 3.4, 2.2), "lower_lip_quarter": (0, 3.0, 2.0),
        "lower_lip_near_corner": (0, 1.0, 0.8), "below_lip_mid": (0, 4.6, 1.2),
        "below_lip_side": (0, 4.2, 1.0), "chin": (0, 4.6, 0.6), "chin_side": (0, 3.6, 0.6),
        "upper_lip_mid": (0, 2.4, 0.8),
        "upper_lip_quarter": (0, 2.0, 0.6), "upper_lip_near_corner": (0, 0.6, 0.2),
        "mouth_corner": (0, -1.0, 0), "below_corner": (0, 0.8, 0),
    }, False),
    "mouthShrugUpper": ({
        "upper_lip_mid": (0, 3.0, 1.6), "upper_lip_quarter": (0, 2.6, 1.4),
        "upper_lip_near_corner": (0, 1.0, 0.6), "philtrum": (0, 1.8, 1.0),
        "upper_lip_side": (0, 1.6, 0.8), "columella": (0, 0.8, 0.3), "ala": (0, 0.5, 0),
        "lower_lip_mid": (0, 2.2, 0.8), "lower_lip_quarter": (0, 1.9, 0.7),
        "lower_lip_near_corner": (0, 0.7, 0.3), "mouth_corner": (0, -0.5, 0),
    }, False),
    "mouthSmile": ({
        "mouth_corner": (7.5, 8.0, -4.0), "upper_lip_near_corner": (5.0, 4.6, -2.2),
        "upper_lip_quarter": (2.2, 1.4, -1.4),
        "lower_lip_near_corner": (5.0, 5.0, -2.4), "lower_lip_quarter": (2.2, 1.4, -1.5),
        "upper_lip_mid": (0, 0.3, -0.8),
        "lower_lip_mid": (0, 0.3, -0.8), "nasolabial": (5.0, 5.4, 1.0), "upper_lip_side": (1.8, 1.6, -0.4),
        "cheek_apple": (1.6, 5.4, 2.8),
        "cheek_mid": (4.6, 5.6, 3.2), "cheek_high": (0.8, 3.4, 1.2), "cheek_low": (3.0, 3.6, 0.6),
        "below_corner": (4.6, 4.2, -1.6),
        "under_eye": (0, 1.4, 0.6), "under_eye_outer": (0, 1.2, 0.4), "ala": (1.2, 0.9, -0.2),
        "nose_cheek": (0.6, 1.2, 0.3), "cheek_back": (1.4, 1.2, 0),
        "below_lip_side": (1.4, 0.9, -0.6), "jaw_line": (0.8, 0.8, 0), "columella": (0, -0.4, -0.2),
        "nose_tip": (0, -0.5, -0.2), "crow": (0, 0.6, 0.2),
    }, True),
    "mouthStretch": ({
        "mouth_corner": (9.0, -3.0, -5.0), "upper_lip_near_corner": (5.6, -1.4, -3.0),
        "lower_lip_near_corner": (6.0, -2.6, -3.0),
        "upper_lip_quarter": (2.6, -0.3, -1.5), "lower_lip_quarter": (2.8, -1.4, -1.6),
        "below_corner": (6.6, -3.0, -2.2), "cheek_mid": (3.6, -1.0, 0.4),
        "cheek_low": (4.6, -1.8, -0.3), "nasolabial": (3.0, -0.6, -0.6), "jaw_line": (2.4, -1.2, -0.3),
        "below_lip_side": (1.8, -1.6, -0.8),
    }, True),
    "mouthUpperUp": ({
        "upper_lip_quarter": (0.5, 6.0, 0.8), "upper_lip_near_corner": (0.8, 4.0, 0.2),
        "upper_lip_mid": (0, 2.6, 0.5), "upper_lip_side": (0.6, 3.8, 0.8),
        "nasolabial": (0.8, 3.6, 1.2), "ala": (0.8, 1.6, 0), "cheek_apple": (0.3, 2.2, 1.2),
        "mouth_corner": (0.3, 1.4, -0.2), "philtrum": (0, 1.2, 0.3),
        "nose_cheek": (0.3, 1.8, 0.6), "columella": (0, 0.3, 0),
    }, True),
    "tongueOut": ({
        "upper_lip_mid": (0, 1.6, 0.8), "upper_lip_quarter": (0, 1.4, 0.6), "philtrum": (0, 0.5, 0.3),
        "lower_lip_mid": (0, -3.0, 0.6), "lower_lip_quarter": (0, -2.6, 0.5), "lower_lip_near_corner": (0, -1.0, 0),
        "below_lip_mid": (0, -1.0, 0.3), "below_lip_side": (0, -0.8, 0.2),
    }, False),
    "noseSneer": ({
        "ala": (1.4, 4.2, -0.6), "nose_side": (0.2, 2.8, 0.4), "nose_cheek": (0.2, 4.2, 1.0),
        "nasolabial": (0.6, 4.0, 1.0), "upper_lip_side": (0.4, 3.0, 0.4),
        "upper_lip_quarter": (0.2, 3.0, 0.4), "upper_lip_near_corner": (0.3, 2.0, 0),
        "upper_lip_mid": (0, 1.2, 0.2), "cheek_apple": (0, 2.6, 1.4),
        "under_eye": (0, 1.6, 0.6), "eye_corner_inner": (0, 0.8, 0.3), "brow_inner": (-0.8, -2.4, 0.6),
        "nose_tip": (0, 0.8, -0.2), "columella": (0, 0.8, 0),
    }, True),
}  # fmt: skip
# Whole mouth drawn to the subject's left: moves of the left handles and of the right ones (x towards the left
# for both).
MOUTH_TO_LEFT: dict[str, tuple[Move, Move]] = {
    "upper_lip_mid": ((3.2, 0.2, 0), (3.2, 0.2, 0)), "upper_lip_quarter": ((6.0, 0.4, -0.8),
    (6.4, -0.2, 0.4)),
    "upper_lip_near_corner": ((5.6, 1.0, -2.0), (6.2, -0.4, 1.2)), "mouth_corner": ((5.4, 1.4, -3.0),
    (6.4, -0.4, 2.0)),
    "lower_lip_mid": ((3.0, 0.2, 0), (3.0, 0.2, 0)), "lower_lip_quarter": ((5.6, 0.4, -0.8), (6.0, 0, 0.4)),
    "lower_lip_near_corner": ((5.4, 0.8, -2.0), (6.2, 0, 1.2)), "nasolabial": ((2.6, 0.8, 0.6),
    (3.0, -0.4, 0.4)), "cheek_mid": ((2.4, 0.6, 1.4), (3.0, 0, -0.6)),
    "below_corner": ((3.8, 0.4, -1.0), (4.2, 0, 0.6)), "below_lip_side": ((3.2, 0.2, -0.4), (3.4, 0.2, 0.4)),
    "below_lip_mid": ((1.8, 0, 0), (1.8, 0, 0)),
    "philtrum": ((1.2, 0, 0), (1.2, 0, 0)), "upper_lip_side": ((2.6, 0.2, 0), (2.8, 0, 0.2)),
    "chin": ((0.6, 0, 0), (0.6, 0, 0)), "cheek_low": ((1.6, 0.2, 0.6), (2.0, 0, -0.2)),
}  # fmt: skip
