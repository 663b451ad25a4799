"""Who is drawn: sex, age, ancestry, size and weight, and the standard deviations of some sixty dimensions.

What was looked up. Abstracts of the NIOSH survey of 3997 US workers: men are larger in nearly every
dimension; African Americans have "shorter, wider, and shallower" noses, longer faces than the mainly Asian
group by 4.5 mm (men) and 5.7 mm (women), and 19 of 24 measures differ from 45 years on (Zhuang and
Bradtmiller, J. Occup. Environ. Hyg. 2, 2005; Zhuang et al., Ann. Occup. Hyg. 54, 2010, PubMed 20219836;
NIOSHTIC 20027338). Chinese workers: shorter face, wider face, less protruding nose, longer lips (survey of
3000 of 2006, Ann. Occup. Hyg.). Intercanthal distance by ancestry, pooled over 67 studies: African 38.5, East
Asian 36.4, White 31.4 mm, deviation about 2.5 (systematic review, PMC9029890). Interpupillary distance: mean
63, nearly all adults 50 to 75 mm (Dodgson, SPIE 5291, 2004). Men have wider mouths, longer upper lips, larger
noses and more prominent lower foreheads, and more so in old age; age makes vermilions narrower, faces less
convex and less symmetric; weight makes faces and noses wider (Skomina et al., PLoS ONE 15, 2020, PMC7224454).
Bone recedes at the maxilla, the orbit's upper inner and lower outer rim and before the jowl (Mendelson and Wong,
Aesth. Plast. Surg. 36, 2012, PMC3404279). Ears lengthen by 0.18 (men) and 0.16 mm (women) a year (Meijerman et
al., J. Forensic Sci. 52, 2007): ours by 0.13.

What was not: the tables behind those abstracts (Kesterke et al., Biol. Sex Differ. 7, 2016, PMC4841054, and
Weinberg et al., 2016, PMC4841760, on 3D Facial Norms; Zankl et al., Am. J. Med. Genet. 111, 2002, on the nose's
growth) and Farkas's book ("Anthropometry of the Head and Face", 1994). The figures below follow them in sign and,
from memory, in size: not verified against the source. The deviations were then set so that sixteen landmark
distances of drawn people spread as those of people drawn from two models built on scans (ICT-FaceKit, Surrey):
figures only, such as 2.0 to 2.6 mm for subnasale to tip, 5 for outer canthi, 2 for brow to eye.

The back of the head, which no photograph of a face shows, varies less than in ANSUR II: there head length is
199.5 (deviation 7.0) in men and 189.8 (7.4) in women, breadth 154.3 (5.5) and 147.8 (5.2) (its public file's
means as another project's notes give them); drawn people of one sex deviate by 5.3 and 4.2.
"""

from dataclasses import dataclass

import numpy as np

from facefit.models.builtin.plane import Array


@dataclass(frozen=True)
class Dimension:
    """Millimetres. `sd`: within a group. `male`: half the difference men minus women. `age`: change from 30
    to 70 years.

    `african`, `asian`: change of the group's mean against the European. `size`, `weight`: change per standard
    deviation of overall head size and of body weight for height.
    """

    sd: float
    male: float = 0.0
    age: float = 0.0
    african: float = 0.0
    asian: float = 0.0
    size: float = 0.0
    weight: float = 0.0


DIMENSIONS: dict[str, Dimension] = {
    "head_breadth": Dimension(3.4, 2.8, 0, -3, 4, 1.4, 0.8),
    "head_length": Dimension(4.4, 3.2, 0, 3, -6, 1.8, 0.5),
    "forehead_height": Dimension(4.2, 0.6, 1.5, 1, 0, 1.0),
    "bizygomatic_breadth": Dimension(2.6, 2.6, 0.5, -0.5, 3, 1.0, 1.6),
    "bigonial_breadth": Dimension(4.8, 4.4, 2.0, -1, 3, 1.5, 3.2),
    "chin_breadth": Dimension(3.2, 2.0, 1, 0, 0, 0.4, 0.8),
    "face_height": Dimension(3.0, 2.4, 1.0, 2.5, -2.0, 1.2),
    "lower_face_height": Dimension(1.7, 1.2, 0.8, 1.5, 0, 0.5),
    "upper_lip_height": Dimension(1.6, 0.8, 2.0, 0, 0, 0.2),
    "chin_height": Dimension(1.5, 0.8, -0.5, 0, -0.5, 0.3),
    "mandible_depth": Dimension(3.0, 0.5, 0, 1.0, -0.5, 0.3),
    "maxilla_depth": Dimension(2.6, 0.6, 0, 2.0, 0, 0.5),
    "face_flatness": Dimension(3.0, 0, 0, 0, 2.5, 0, 0.5),
    "chin_projection": Dimension(2.2, 0.7, 0.3, -1.5, -1.5, 0.2),
    "gonial_height": Dimension(4.0, -1.6, 0, 0, 0, 0.0),
    "interpupillary": Dimension(2.7, 0.9, 0, 3.0, 1.4, 0.6),
    "eye_width": Dimension(1.3, 0.4, -0.8, 0.2, -1.2, 0.3),
    "eye_opening": Dimension(0.9, -0.25, -0.9, 0.2, -1.0),
    "canthal_tilt": Dimension(1.1, -0.4, -0.8, 0.4, 1.2),
    "eye_protrusion": Dimension(1.5, -0.2, -1.0, 1.2, 1.6, 0.2),
    "brow_height": Dimension(2.5, -1.3, -1.5, 0.3, 0.8),
    "brow_ridge": Dimension(1.3, 1.3, 0.4, 0.2, -1.2),
    "brow_outer_height": Dimension(1.4, -0.7, -1.5),
    "upper_lid_fold": Dimension(0.8, 0.1, 0.9, 0, 1.2, 0, 0.2),
    "under_eye": Dimension(0.7, 0, 0.8, 0, 0.2, 0, 0.2),
    "nose_breadth": Dimension(2.1, 1.5, 1.4, 7.5, 3.5, 0.5, 0.4),
    "nose_length": Dimension(2.8, 1.3, 2.5, -1.5, -1.0, 0.6),
    "nose_protrusion": Dimension(3.2, 0.9, 0.8, -3.0, -2.5, 0.3),
    "bridge_height": Dimension(1.5, 0.5, 0, -2.4, -3.0, 0.2),
    "nasal_hump": Dimension(0.9, 0.35, 0.4, -0.4, -0.5),
    "bridge_breadth": Dimension(1.4, 0.6, 0, 2.2, 1.0, 0.2),
    "tip_rise": Dimension(1.6, -0.5, -1.8, 0, 0.3),
    "tip_breadth": Dimension(1.5, 0.6, 0.5, 2.6, 1.5, 0.2),
    "ala_height": Dimension(1.0, 0, 0, 0, 0),
    "columella_drop": Dimension(0.8, 0, 0.3, -0.4, -0.4),
    "mouth_breadth": Dimension(3.0, 1.3, 1.4, 2.2, 0, 0.6, 0.3),
    "upper_lip_thickness": Dimension(1.2, 0, -1.6, 2.6, 0.5),
    "lower_lip_thickness": Dimension(1.2, 0.1, -1.2, 2.4, 0.5),
    "lip_protrusion": Dimension(1.4, 0.2, -1.2, 3.6, 1.5),
    "cupids_bow": Dimension(0.7, 0, -0.5),
    "mouth_corner_height": Dimension(1.0, 0, -1.2, 0, 0, 0, 0.2),
    "mentolabial_depth": Dimension(1.0, 0.4, 0.4, -0.4),
    "cheekbone": Dimension(1.4, -0.3, -1.0, 0.2, 1.2, 0.2, 0.3),
    "cheek_fullness": Dimension(1.6, -0.3, -0.6, 0, 0.6, 0, 2.3),
    "jowl": Dimension(1.3, 0.2, 2.4, 0, 0, 0, 1.8),
    "double_chin": Dimension(2.0, 0.2, 3.0, 0, 0, 0, 3.4),
    "nasolabial_fold": Dimension(0.6, 0.1, 1.2, 0, 0.1, 0, 0.3),
    "temple": Dimension(1.2, 0, -1.2, 0, 0.3, 0.3, 0.6),
    "forehead_slope": Dimension(2.2, -1.8, 0, 0.8, 0.6, 0.2),
    "forehead_bossing": Dimension(0.9, -0.5, 0, 0.5, 0.2),
    "malar_hollow": Dimension(1.2, 0.1, 1.4, 0, 0, 0, -1.4),
    "neck_girth": Dimension(3.0, 4.5, 1.0, 0, 0, 0.5, 3.0),
    "ear_length": Dimension(3.2, 1.8, 5.0, -2.5, 0, 0.5),
    "ear_protrusion": Dimension(2.4, 0.4, 0.5, -0.5),
}
DEVIATIONS_BETWEEN_SIDES: dict[str, float] = {
    "nose_deviation": 0.9, "chin_deviation": 1.3, "mouth_cant": 0.6, "eye_height_difference": 0.6,
    "brow_height_difference": 0.7, "cheek_difference": 0.7, "depth_difference": 0.5, "lid_difference": 0.3,
    "ala_difference": 0.4,
}  # fmt: skip


def draw_people(count: int, random: np.random.Generator) -> dict[str, Array]:
    """Deviation of every dimension from the mean head, millimetres, for `count` people."""
    male = random.choice([-1.0, 1.0], count)
    age = np.clip((random.uniform(18.0, 80.0, count) - 40.0) / 40.0, -1.0, 1.0)
    ancestry = random.dirichlet([0.55, 0.35, 0.45], count)
    size, weight = random.standard_normal((2, count))
    drawn = {}
    for name, d in DIMENSIONS.items():
        group = d.male * male + d.age * age + d.african * ancestry[:, 1] + d.asian * ancestry[:, 2]
        drawn[name] = group + d.size * size + d.weight * weight + d.sd * random.standard_normal(count)
    for name, deviation in DEVIATIONS_BETWEEN_SIDES.items():
        drawn[name] = deviation * random.standard_normal(count)
    return drawn
