"""The official checkpoints, as data: one entry each.

Numbers of parameters and tensors and key layouts are those of the released files, qualities those
that were published; a checksum or size that no source states is left out, never guessed.
"""

from dataclasses import replace
from typing import Any

import torch

from advpure.base.registry import Registry
from advpure.checkpoints import cifar_classifiers as cifar
from advpure.checkpoints import song, song_names, unet2d, unet2d_names, vision
from advpure.checkpoints.adapters import AsClassifier, AsDenoiser
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.song import SongConfig
from advpure.checkpoints.unet2d import UNet2DConfig
from advpure.checkpoints.vision import VisionConfig

CHECKPOINTS: Registry[Checkpoint] = Registry("official checkpoint")

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = AsClassifier(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_OPENAI = "https://openaipublic.blob.core.windows.net"
_EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"
_BY_NC = "CC BY-NC-SA 4.0"
_DDPM = UNet2DConfig(
    image_size=32, channels=(128, 256, 256, 256), layers=2, attention=(1,), adm=False
)
_ADM64 = UNet2DConfig(
    image_size=64,
    channels=(192, 384, 576, 768),
    layers=3,
    attention=(1, 2, 3),
    head_channels=64,
    resample_blocks=True,
    classes=1000,
    order="parts",
)
_EPSILON = AsDenoiser(kind="epsilon")
_NCSNPP = SongConfig(fourier=True, fir=True, residual_input=True)


def _add(entry: Checkpoint) -> None:
    CHECKPOINTS.register(entry.name, entry, about=entry.about)


def _unet(**settings: Any) -> Checkpoint:
    return Checkpoint(kind="denoiser", build=unet2d.build, layout=unet2d_names.layout, **settings)


def _song(**settings: Any) -> Checkpoint:
    """An entry of a network that takes as long in either layout, so that it needs no copy."""
    return Checkpoint(
        kind="denoiser",
        build=song.build,
        layout=song_names.layout,
        memory_format=torch.contiguous_format,
        **settings,
    )


def _vision(**settings: Any) -> Checkpoint:
    return Checkpoint(kind="classifier", build=vision.build, layout=vision.layout, **settings)


_pesser = _unet(
    name="pesser-ddpm-cifar10",
    about="DDPM on CIFAR-10, averaged weights, port of the original to PyTorch",
    dataset="cifar10",
    source="https://heibox.uni-heidelberg.de/f/2e4f01e2d9ee49bab1d5/?dl=1",
    licence="MIT",
    parameters=35_746_307,
    tensors=328,
    quality="FID 3.21 (reported by the port)",
    config=replace(_DDPM, names="ddpm", trailing=(1, 1)),
    adapt=_EPSILON,
    proof="ddpm",
    checksum="md5:1fa350b952534ae442b1d5235cce5cd3",
)
_add(_pesser)
_add(
    replace(
        _pesser,
        name="pesser-ddpm-cifar10-raw",
        about="DDPM on CIFAR-10, weights without averaging",
        weights="raw",
        source="https://heibox.uni-heidelberg.de/f/869980b53bf5416c8a28/?dl=1",
        quality="FID 12.1 (reported by the port)",
        checksum="md5:82ed3067fd1002f5cf4c339fb80c4669",
    )
)
_add(
    _unet(
        name="google-ddpm-cifar10",
        about="DDPM on CIFAR-10 as the model hub has it",
        dataset="cifar10",
        source="hf:google/ddpm-cifar10-32/diffusion_pytorch_model.safetensors",
        licence="Apache-2.0",
        parameters=35_746_307,
        tensors=328,
        quality="FID 3.17 (published for the original; disputed for this file)",
        config=replace(_DDPM, names="diffusers"),
        adapt=_EPSILON,
        proof="ddpm-diffusers",
        aliases=(
            (r"\.query\.", ".to_q."),
            (r"\.key\.", ".to_k."),
            (r"\.value\.", ".to_v."),
            (r"\.proj_attn\.", ".to_out.0."),
        ),
    )
)
_add(
    _unet(
        name="iddpm-cifar10",
        about="improved DDPM on CIFAR-10, 50 M, L_hybrid, cosine schedule of 4000 steps",
        dataset="cifar10",
        source=f"{_OPENAI}/diffusion/march-2021/cifar10_uncond_50M_500K.pt",
        licence="MIT",
        parameters=52_546_438,
        tensors=446,
        quality="one-shot accuracy 84.9 / 71.6 / 50.8 % at sigma 0.25 / 0.5 / 1 before the ViT",
        config=UNet2DConfig(
            image_size=32,
            channels=(128, 256, 256, 256),
            layers=3,
            attention=(1, 2),
            heads=4,
            out_channels=6,
        ),
        adapt=AsDenoiser(
            kind="epsilon", schedule="cosine", steps=4000, rescaled=True, learned_variance=True
        ),
        proof="iddpm-cifar10",
    )
)
_add(
    _unet(
        name="iddpm-imagenet64",
        about="improved DDPM on ImageNet-64, 120 M, L_hybrid, cosine schedule of 4000 steps",
        dataset="imagenet64",
        source=f"{_OPENAI}/diffusion/march-2021/imagenet64_uncond_100M_1500K.pt",
        licence="MIT",
        parameters=121_063_942,
        tensors=450,
        quality="FID 19.2 (published)",
        config=UNet2DConfig(
            image_size=64,
            channels=(128, 256, 384, 512),
            layers=3,
            attention=(2, 3),
            heads=4,
            out_channels=6,
        ),
        adapt=AsDenoiser(
            kind="epsilon", schedule="cosine", steps=4000, rescaled=True, learned_variance=True
        ),
        proof="iddpm-imagenet64",
    )
)
_add(
    _unet(
        name="adm-imagenet256",
        about="ADM on ImageNet 256 x 256, unconditional, linear schedule of 1000 steps",
        dataset="imagenet",
        source=f"{_OPENAI}/diffusion/jul-2021/256x256_diffusion_uncond.pt",
        licence="MIT",
        parameters=552_814_086,
        tensors=566,
        quality="FID 26.2 (published)",
        config=UNet2DConfig(
            image_size=256,
            channels=(256, 256, 512, 512, 1024, 1024),
            layers=2,
            attention=(3, 4, 5),
            head_channels=64,
            out_channels=6,
            resample_blocks=True,
        ),
        adapt=AsDenoiser(kind="epsilon", learned_variance=True),
        proof="adm-imagenet256",
    )
)
_add(
    _unet(
        name="adm-imagenet64-cond",
        about="ADM on ImageNet-64, class-conditional, cosine schedule of 1000 steps",
        dataset="imagenet64",
        source=f"{_OPENAI}/diffusion/jul-2021/64x64_diffusion.pt",
        licence="MIT",
        parameters=295_904_454,
        tensors=541,
        quality="FID 2.07 (published, with classifier guidance)",
        config=replace(_ADM64, out_channels=6),
        adapt=AsDenoiser(kind="epsilon", schedule="cosine", learned_variance=True),
        proof="adm-imagenet64-cond",
    )
)

_cm = _unet(
    name="cm-imagenet64-cd-lpips",
    about="consistency distillation (LPIPS) on ImageNet-64, class-conditional",
    dataset="imagenet64",
    source=f"{_OPENAI}/consistency/cd_imagenet64_lpips.pt",
    licence="MIT",
    parameters=295_899_267,
    tensors=541,
    quality="FID 6.20 in one step, 4.70 in two (published)",
    config=replace(_ADM64, time_scale=1000.0, trailing=(1, 1)),
    adapt=AsDenoiser(kind="consistency"),
    proof="cm-imagenet64",
)
_add(_cm)
_CM_VARIANTS = (
    ("cd-l2", "consistency distillation (l2)", "consistency", "FID is in the paper's figures only"),
    ("ct", "consistency training", "consistency", "FID 13.0 in one step, 11.1 in two (published)"),
    ("edm", "EDM teacher of the consistency models", "edm", "FID 2.44 with 79 steps (published)"),
)
for _short, _what, _kind, _quality in _CM_VARIANTS:
    _file = {"cd-l2": "cd_imagenet64_l2", "ct": "ct_imagenet64", "edm": "edm_imagenet64_ema"}[
        _short
    ]
    _add(
        replace(
            _cm,
            name=f"cm-imagenet64-{_short}",
            about=f"{_what} on ImageNet-64, class-conditional",
            source=f"{_OPENAI}/consistency/{_file}.pt",
            quality=_quality,
            adapt=AsDenoiser(kind="edm" if _kind == "edm" else "consistency"),
        )
    )
for _short, _repository in (
    ("cd-lpips", "diffusers-cd_imagenet64_lpips"),
    ("cd-l2", "diffusers-cd_imagenet64_l2"),
    ("ct", "diffusers-ct_imagenet64"),
):
    _twin = CHECKPOINTS.get(f"cm-imagenet64-{_short}")
    _add(
        replace(
            _twin,
            name=f"diffusers-{_twin.name}",
            about=f"{_twin.about}, as the model hub has it",
            source=f"hf:openai/{_repository}/unet/diffusion_pytorch_model.safetensors",
            tensors=629,
            config=replace(_cm.config, names="diffusers"),
            proof="cm-imagenet64-diffusers",
        )
    )

_jcm = _song(
    name="jcm-cifar10-cd-lpips",
    about="consistency distillation (LPIPS) on CIFAR-10, NCSN++ in JAX",
    dataset="cifar10",
    source=f"{_OPENAI}/consistency/jcm_checkpoints/cd-lpips/checkpoints/checkpoint_80",
    licence="Apache-2.0",
    parameters=56_395_651,
    tensors=445,
    quality="FID 3.55 in one step, 2.93 in two (published)",
    config=replace(_NCSNPP, names="flax"),
    adapt=AsDenoiser(kind="consistency"),
    proof="jcm-cifar10",
    reader="flax",
)
_add(_jcm)
for _short, _what, _place, _quality in (
    ("cd-l2", "consistency distillation (l2)", "cd-l2/checkpoints/checkpoint_80", "not tabulated"),
    ("cd-l1", "consistency distillation (l1)", "cd-l1/checkpoints/checkpoint_80", "not tabulated"),
    (
        "ct-lpips",
        "consistency training (LPIPS)",
        "ct-lpips/checkpoints/checkpoint_74",
        "FID 8.70 in one step, 5.83 in two (published)",
    ),
    (
        "edm",
        "EDM teacher of the consistency models",
        "edm_cifar10_ema",
        "FID 2.04 with 35 evaluations (published)",
    ),
):
    _add(
        replace(
            _jcm,
            name=f"jcm-cifar10-{_short}",
            about=f"{_what} on CIFAR-10, NCSN++ in JAX",
            source=f"{_OPENAI}/consistency/jcm_checkpoints/{_place}",
            quality=_quality,
            adapt=AsDenoiser(kind="edm" if _short == "edm" else "consistency"),
        )
    )
for _short, _step in (
    ("continuous-cd-l2", 40),
    ("continuous-cd-l2-stopgrad", 40),
    ("continuous-cd-lpips-stopgrad", 40),
    ("continuous-ct-l2", 80),
    ("continuous-ct-lpips", 40),
):
    _folder = _short if "ct" in _short else f"cifar10-{_short}"
    _add(
        replace(
            _jcm,
            name=f"jcm-cifar10-{_short}",
            about=f"continuous-time consistency model ({_short.partition('-')[2]}) on CIFAR-10, "
            "NCSN++ in JAX",
            source=f"{_OPENAI}/consistency/jcm_checkpoints/{_folder}/checkpoints/"
            f"checkpoint_{_step}",
            quality="in the paper's appendix",
        )
    )
_add(
    replace(
        _jcm,
        name="jcm-cifar10-purification",
        about="consistency model fine-tuned for purification (LPIPS) on CIFAR-10, NCSN++ in JAX",
        source="hf:datasets/YiquanLi/Consistency_Purification/checkpoint_120",
        licence="not stated",
        quality="certified accuracy of Consistency purification, its table 1",
    )
)

_edm = _song(
    name="edm-cifar10-uncond-vp",
    about="EDM on CIFAR-10, unconditional, DDPM++",
    dataset="cifar10",
    source=f"{_EDM}/edm-cifar10-32x32-uncond-vp.pkl",
    licence=_BY_NC,
    parameters=55_733_891,
    tensors=425,
    quality="FID 1.97 with 35 evaluations (published)",
    config=SongConfig(),
    adapt=AsDenoiser(kind="edm"),
    proof="edm-vp",
    reader="edm",
)
_add(_edm)
_ve = replace(
    _edm,
    name="edm-cifar10-uncond-ve",
    about="EDM on CIFAR-10, unconditional, NCSN++",
    source=f"{_EDM}/edm-cifar10-32x32-uncond-ve.pkl",
    parameters=56_397_827,
    tensors=432,
    quality="FID 1.98 with 35 evaluations (published)",
    config=_NCSNPP,
    proof="edm-ve",
)
_add(_ve)
_add(
    replace(
        _edm,
        name="edm-cifar10-cond-vp",
        about="EDM on CIFAR-10, class-conditional, DDPM++",
        source=f"{_EDM}/edm-cifar10-32x32-cond-vp.pkl",
        parameters=55_735_299,
        tensors=427,
        quality="FID 1.79 with 35 evaluations (published)",
        config=replace(_edm.config, classes=10),
        proof="edm-cond-vp",
    )
)
_add(
    replace(
        _ve,
        name="edm-cifar10-cond-ve",
        about="EDM on CIFAR-10, class-conditional, NCSN++",
        source=f"{_EDM}/edm-cifar10-32x32-cond-ve.pkl",
        parameters=56_400_643,
        tensors=434,
        quality="FID 1.79 with 35 evaluations (published)",
        config=replace(_ve.config, classes=10),
        proof="edm-cond-ve",
    )
)
_add(
    _unet(
        name="edm-imagenet64-cond",
        about="EDM on ImageNet-64, class-conditional, ADM",
        dataset="imagenet64",
        source=f"{_EDM}/edm-imagenet-64x64-cond-adm.pkl",
        licence=_BY_NC,
        parameters=295_899_267,
        tensors=553,
        quality="FID 1.36 with 511 evaluations (published)",
        config=replace(_ADM64, names="edm", order="interleaved", trailing=(1, 1)),
        adapt=AsDenoiser(kind="edm"),
        proof="edm-imagenet64",
        reader="edm",
    )
)
_add(
    _song(
        name="scoresde-cifar10-ddpmpp",
        about="Score-SDE on CIFAR-10, DDPM++ deep, continuous VP (DiffPure's), averaged weights",
        dataset="cifar10",
        source="https://drive.google.com/drive/folders/1ZMLBiu9j7-rpdTQu8M2LlHAEQq4xRYrj",
        licence="Apache-2.0",
        parameters=106_632_579,
        tensors=957,
        quality="FID 2.41 (published)",
        config=SongConfig(multiples=(1, 2, 2, 2), blocks=8, names="score-sde"),
        adapt=AsDenoiser(kind="vp"),
        proof="scoresde",
        reader="score-sde",
    )
)

_add(
    Checkpoint(
        name="robustbench-standard",
        about="WRN-28-10 on CIFAR-10, RobustBench's Standard",
        kind="classifier",
        dataset="cifar10",
        source="https://drive.google.com/uc?id=1t98aEuzeTL8P7Kpd5DIrCoCL21BNZUhC",
        licence="MIT",
        parameters=36_479_194,
        tensors=155,
        quality="94.78 % of the test set (published)",
        accuracy=94.78,
        build=cifar.build_wide,
        layout=cifar.layout_wide,
        config=cifar.WideResNetConfig(),
        adapt=AsClassifier(),
        proof="wrn-28-10",
    )
)
_add(
    Checkpoint(
        name="resnet56-cifar10",
        about="ResNet-56 on CIFAR-10, shortcut A, 0.85 M parameters",
        kind="classifier",
        dataset="cifar10",
        source="https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
        "resnet56-4bfd9763.th",
        licence="BSD-2-Clause",
        parameters=853_018,
        tensors=277,
        quality="93.39 % of the test set (published; the file records 93.62 %)",
        accuracy=93.39,
        build=cifar.build_resnet,
        layout=cifar.layout_resnet,
        config=cifar.ResNetConfig(),
        adapt=_IMAGENET,
        proof="resnet56",
        checksum="sha256:4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        bytes=3_471_733,
    )
)
_add(
    _vision(
        name="robustbench-standard-r50",
        about="ResNet-50 on ImageNet, torchvision's first weights, RobustBench's Standard_R50",
        dataset="imagenet",
        source="https://download.pytorch.org/models/resnet50-0676ba61.pth",
        licence="BSD-3-Clause",
        parameters=25_557_032,
        tensors=320,
        quality="76.52 % of 50,000 validation images (RobustBench)",
        accuracy=76.52,
        config=VisionConfig(library="torchvision", model="resnet50"),
        adapt=_IMAGENET,
        proof="resnet50",
    )
)
_robust = _vision(
    name="microsoft-resnet50-l2-3",
    about="ResNet-50 on ImageNet, trained against l2 attacks of 3",
    dataset="imagenet",
    source="hf:madrylab/robust-imagenet-models/resnet50_l2_eps3.ckpt",
    licence="MIT",
    parameters=25_557_032,
    tensors=320,
    quality="62.83 % of 50,000 validation images (published)",
    accuracy=62.83,
    config=VisionConfig(library="torchvision", model="resnet50"),
    adapt=_IMAGENET,
    proof="resnet50",
    reader="robustness",
)
_WIDE = VisionConfig(library="torchvision", model="wide_resnet50_2")
_add(_robust)
_add(
    replace(
        _robust,
        name="microsoft-wide-resnet50-2-l2-3",
        about="Wide ResNet-50-2 on ImageNet, trained against l2 attacks of 3",
        source="hf:madrylab/robust-imagenet-models/wide_resnet50_2_l2_eps3.ckpt",
        quality="66.90 % of 50,000 validation images (published)",
        accuracy=66.90,
        parameters=68_883_240,
        config=_WIDE,
        proof="wide-resnet50-2",
    )
)
_add(
    replace(
        _robust,
        name="madry-resnet50-l2-3",
        about="ResNet-50 on ImageNet, trained against l2 attacks of 3, by the robustness library",
        source="https://www.dropbox.com/s/knf4uimlqsi1yz8/imagenet_l2_3_0.pt?dl=0",
        quality="stated by its library, not repeated here",
        accuracy=None,
    )
)
_joint = replace(
    _robust,
    name="golan-joint-resnet50",
    about="joint classifier and discriminator of ImageNet-64, ResNet-50",
    dataset="imagenet64",
    source="https://drive.google.com/uc?id=1L6Nd3ldlu_rL6OIPvHioOI5iUewn0cfZ",
    licence="not stated",
    quality="FID 4.95 of boosted cm-imagenet64-cd-lpips in one step, 6.20 before (published)",
    accuracy=None,
)
_add(_joint)
_add(
    replace(
        _joint,
        name="golan-joint-wide-resnet50-2",
        about="joint classifier and discriminator of ImageNet-64, Wide ResNet-50-2",
        source="https://drive.google.com/uc?id=1KTP2vL8cjK0OAL2CXIC53fREVg8pRisz",
        quality="FID 4.84 of boosted cm-imagenet64-cd-lpips in one step, 6.20 before (published)",
        parameters=68_883_240,
        config=_WIDE,
        proof="wide-resnet50-2",
    )
)
_add(
    _vision(
        name="vit-b16-cifar10",
        about="ViT-B/16 fine-tuned on CIFAR-10 at 224 pixels",
        dataset="cifar10",
        source="hf:aaraki/vit-base-patch16-224-in21k-finetuned-cifar10/pytorch_model.bin",
        licence="Apache-2.0",
        parameters=85_806_346,
        tensors=200,
        quality="97.9 % of the test set (published; check its label order by this)",
        accuracy=97.9,
        config=VisionConfig(
            library="timm",
            model="vit_base_patch16_224",
            classes=10,
            epsilon=1e-12,
            names="transformers",
        ),
        adapt=AsClassifier(mean=_HALF, std=_HALF, size=224),
        proof="vit-cifar10",
    )
)
_add(
    _vision(
        name="vit-b16-imagenet",
        about="ViT-B/16 on ImageNet at 224 pixels",
        dataset="imagenet",
        source="hf:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k/model.safetensors",
        licence="Apache-2.0",
        parameters=86_567_656,
        tensors=152,
        quality="85.1 % of 50,000 validation images (timm)",
        accuracy=85.1,
        config=VisionConfig(library="timm", model="vit_base_patch16_224"),
        adapt=AsClassifier(mean=_HALF, std=_HALF, size=224),
        proof="vit-imagenet",
    )
)
_add(
    _vision(
        name="beit-l16-imagenet",
        about="BEiT-L/16 on ImageNet at 512 pixels",
        dataset="imagenet",
        source="hf:timm/beit_large_patch16_512.in22k_ft_in22k_in1k/model.safetensors",
        licence="Apache-2.0",
        parameters=305_674_728,
        tensors=391,
        quality="88.6 % of 50,000 validation images (published)",
        accuracy=88.6,
        config=VisionConfig(library="timm", model="beit_large_patch16_512"),
        adapt=AsClassifier(mean=_HALF, std=_HALF, size=512),
        proof="beit-imagenet",
    )
)
