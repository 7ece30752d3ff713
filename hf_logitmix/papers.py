"""The papers that parts are from: a part names its own, and a method has those of its parts."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """What one cites.

    Attributes:
        key: of its BibTeX entry.
        authors: full names.
        title, venue, year: as published; of a preprint alone the venue is empty.
        url: where it can be read.
        note: what is taken from it where that is not the paper's own name, such as the layer of a library.
    """

    key: str
    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    url: str
    note: str = ""

    @property
    def reference(self) -> str:
        """One line: first author, title, venue, year."""
        family = self.authors[0].split()[-1]
        who = family if len(self.authors) == 1 else f"{family} et al."
        where = f"{self.venue} {self.year}".strip()
        return f"{who}, {self.title}, {where}" + (f" ({self.note})" if self.note else "")

    @property
    def bibtex(self) -> str:
        """The BibTeX entry."""
        kind, place = ("inproceedings", "booktitle") if self.venue else ("misc", "howpublished")
        fields = {
            "title": f"{{{self.title}}}",  # the second braces keep its capitals
            "author": " and ".join(self.authors),
            place: self.venue or "Preprint",
            "year": str(self.year),
            "url": self.url,
        }
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items()]
        return f"@{kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"


_ARXIV = "https://arxiv.org/abs/"
_CVF = "https://openaccess.thecvf.com/content/"

C_MIXUP = Paper(
    "yao2022cmixup",
    ("Huaxiu Yao", "Yiping Wang", "Linjun Zhang", "James Zou", "Chelsea Finn"),
    "C-Mixup: Improving Generalization in Regression",
    "NeurIPS",
    2022,
    f"{_ARXIV}2210.05775",
)
CAFFE = Paper(
    "jia2014caffe",
    (
        *("Yangqing Jia", "Evan Shelhamer", "Jeff Donahue", "Sergey Karayev", "Jonathan Long", "Ross Girshick"),
        *("Sergio Guadarrama", "Trevor Darrell"),
    ),
    "Caffe: Convolutional Architecture for Fast Feature Embedding",
    "ACM Multimedia",
    2014,
    f"{_ARXIV}1408.5093",
    note="its InfogainLoss layer",
)
CUTMIX = Paper(
    "yun2019cutmix",
    ("Sangdoo Yun", "Dongyoon Han", "Seong Joon Oh", "Sanghyuk Chun", "Junsuk Choe", "Youngjoon Yoo"),
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
    "ICCV",
    2019,
    f"{_ARXIV}1905.04899",
)
DEIT = Paper(
    "touvron2021training",
    (
        *("Hugo Touvron", "Matthieu Cord", "Matthijs Douze", "Francisco Massa", "Alexandre Sablayrolles"),
        "Hervé Jégou",
    ),
    "Training data-efficient image transformers and distillation through attention",
    "ICML",
    2021,
    f"{_ARXIV}2012.12877",
    note="Mixup and CutMix in turn, as timm's Mixup switches",
)
DISTILLATION = Paper(
    "hinton2015distilling",
    ("Geoffrey Hinton", "Oriol Vinyals", "Jeff Dean"),
    "Distilling the Knowledge in a Neural Network",
    "",
    2015,
    f"{_ARXIV}1503.02531",
)
DUAL_FOCAL = Paper(
    "tao2023dual",
    ("Linwei Tao", "Minjing Dong", "Chang Xu"),
    "Dual Focal Loss for Calibration",
    "ICML",
    2023,
    f"{_ARXIV}2305.13665",
)
FOCAL = Paper(
    "lin2017focal",
    ("Tsung-Yi Lin", "Priya Goyal", "Ross Girshick", "Kaiming He", "Piotr Dollár"),
    "Focal Loss for Dense Object Detection",
    "ICCV",
    2017,
    f"{_ARXIV}1708.02002",
)
FOCAL_CALIBRATION = Paper(
    "mukhoti2020calibrating",
    (
        *("Jishnu Mukhoti", "Viveka Kulharia", "Amartya Sanyal", "Stuart Golodetz", "Philip H. S. Torr"),
        "Puneet K. Dokania",
    ),
    "Calibrating Deep Neural Networks using Focal Loss",
    "NeurIPS",
    2020,
    f"{_ARXIV}2002.09437",
    note="its gamma",
)
LABEL_SMOOTHING = Paper(
    "szegedy2016rethinking",
    ("Christian Szegedy", "Vincent Vanhoucke", "Sergey Ioffe", "Jon Shlens", "Zbigniew Wojna"),
    "Rethinking the Inception Architecture for Computer Vision",
    "CVPR",
    2016,
    f"{_ARXIV}1512.00567",
)
LAMIX = Paper(
    "lamix2021",
    ("Anonymous",),
    "Bypassing the Random Input Mixing in Mixup",
    "submitted to ICLR",
    2021,
    "https://openreview.net/forum?id=mLtPtH2SIHX",
)
LOGITMIX = Paper(
    "bang2022logit",
    (
        *("Duhyeon Bang", "Kyungjune Baek", "Jiwoo Kim", "Yunho Jeon", "Jin-Hwa Kim", "Jiwon Kim", "Jongwuk Lee"),
        "Hyunjung Shim",
    ),
    "Logit Mixing Training for More Reliable and Accurate Prediction",
    "IJCAI",
    2022,
    "https://www.ijcai.org/proceedings/2022/390",
)
MANIFOLD_MIXUP = Paper(
    "verma2019manifold",
    (
        *("Vikas Verma", "Alex Lamb", "Christopher Beckham", "Amir Najafi", "Ioannis Mitliagkas"),
        *("David Lopez-Paz", "Yoshua Bengio"),
    ),
    "Manifold Mixup: Better Representations by Interpolating Hidden States",
    "ICML",
    2019,
    f"{_ARXIV}1806.05236",
)
MARGIN = Paper(
    "liu2022devil",
    ("Bingyuan Liu", "Ismail Ben Ayed", "Adrian Galdran", "Jose Dolz"),
    "The Devil Is in the Margin: Margin-Based Label Smoothing for Network Calibration",
    "CVPR",
    2022,
    f"{_ARXIV}2111.15430",
)
MCEL = Paper(
    "negi2018leveraging",
    ("Pooran Singh Negi", "David Chan", "Mohammad Mahoor"),
    "Leveraging Class Similarity to Improve Deep Neural Network Robustness",
    "",
    2018,
    f"{_ARXIV}1812.09744",
)
MIT = Paper(
    "wang2023pitfall",
    ("Deng-Bao Wang", "Lanqing Li", "Peilin Zhao", "Pheng-Ann Heng", "Min-Ling Zhang"),
    "On the Pitfall of Mixup for Uncertainty Calibration",
    "CVPR",
    2023,
    f"{_CVF}CVPR2023/html/Wang_On_the_Pitfall_of_Mixup_for_Uncertainty_Calibration_CVPR_2023_paper.html",
)
MIXUP = Paper(
    "zhang2018mixup",
    ("Hongyi Zhang", "Moustapha Cisse", "Yann N. Dauphin", "David Lopez-Paz"),
    "mixup: Beyond Empirical Risk Minimization",
    "ICLR",
    2018,
    f"{_ARXIV}1710.09412",
)
MIXUP_TRANSFORMER = Paper(
    "sun2020mixup",
    ("Lichao Sun", "Congying Xia", "Wenpeng Yin", "Tingting Liang", "Philip S. Yu", "Lifang He"),
    "Mixup-Transformer: Dynamic Data Augmentation for NLP Tasks",
    "COLING",
    2020,
    f"{_ARXIV}2010.02394",
)
PUZZLEMIX = Paper(
    "kim2020puzzle",
    ("Jang-Hyun Kim", "Wonho Choo", "Hyun Oh Song"),
    "Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup",
    "ICML",
    2020,
    f"{_ARXIV}2009.06962",
)
REGMIXUP = Paper(
    "pinto2022regmixup",
    ("Francesco Pinto", "Harry Yang", "Ser-Nam Lim", "Philip H. S. Torr", "Puneet K. Dokania"),
    "Using Mixup as a Regularizer Can Surprisingly Improve Accuracy and Out-of-Distribution Robustness",
    "NeurIPS",
    2022,
    f"{_ARXIV}2206.14502",
)
REMIX = Paper(
    "chou2020remix",
    ("Hsin-Ping Chou", "Shih-Chieh Chang", "Jia-Yu Pan", "Wei Wei", "Da-Cheng Juan"),
    "Remix: Rebalanced Mixup",
    "ECCV Workshops",
    2020,
    f"{_ARXIV}2007.03943",
)
RESNET_STRIKES_BACK = Paper(
    "wightman2021resnet",
    ("Ross Wightman", "Hugo Touvron", "Hervé Jégou"),
    "ResNet strikes back: An improved training procedure in timm",
    "",
    2021,
    f"{_ARXIV}2110.00476",
)
SSMIX = Paper(
    "yoon2021ssmix",
    ("Soyoung Yoon", "Gyuwan Kim", "Kyumin Park"),
    "SSMix: Saliency-Based Span Mixup for Text Classification",
    "Findings of ACL-IJCNLP",
    2021,
    f"{_ARXIV}2106.08062",
)
TEMPERATURE = Paper(
    "guo2017calibration",
    ("Chuan Guo", "Geoff Pleiss", "Yu Sun", "Kilian Q. Weinberger"),
    "On Calibration of Modern Neural Networks",
    "ICML",
    2017,
    f"{_ARXIV}1706.04599",
)
