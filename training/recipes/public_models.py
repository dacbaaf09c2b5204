"""Activations of public models from apply_, over those of their authors' initialisation, on 1/f noise.

    python -m training run public_models --workers 2 --record

It needs torchvision and timm, and diffusers for the ControlNet. All CNNs of torchvision are there: classification,
segmentation, the backbones of detectors, and the losses of three detectors in training mode; CNNs of timm in small
variants of each family; and super-resolution networks without normalisation.

Expected: no figure; the paper's networks have two or three convolutions.
Found: ``training/results/public_models.csv``, a row per model; ``public_models_summary.csv`` and ``public_models.png``.
Departures: images of 96×96 where a model has no size of its own, and one seed.
"""

from training.engine.stage import Stage
from training.experiments.public_models import PublicModels
from training.networks.public import CONTROLNET, DETECTION, LOSSES, SEGMENTATION, TORCHVISION
from training.networks.registry import TIMM

FOLDER = "public_models"
ALONE: tuple[str, ...] = ("edsr:16", "edsr:32", f"{LOSSES}retinanet_resnet50_fpn", f"{LOSSES}fcos_resnet50_fpn")
ALONE = (*ALONE, f"{LOSSES}ssd300_vgg16", CONTROLNET)
OF_TORCHVISION = """
alexnet convnext_tiny convnext_small convnext_base convnext_large densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l googlenet inception_v3 mnasnet0_5 mnasnet0_75
mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_x_800mf regnet_x_1_6gf
regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf
regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d
resnext101_32x8d resnext101_64x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
squeezenet1_0 squeezenet1_1 vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn wide_resnet50_2
wide_resnet101_2
"""
OF_SEGMENTATION = """
deeplabv3_mobilenet_v3_large deeplabv3_resnet50 deeplabv3_resnet101 fcn_resnet50 fcn_resnet101
lraspp_mobilenet_v3_large
"""
OF_DETECTION = """
fasterrcnn_mobilenet_v3_large_320_fpn fasterrcnn_mobilenet_v3_large_fpn fasterrcnn_resnet50_fpn
fasterrcnn_resnet50_fpn_v2 fcos_resnet50_fpn keypointrcnn_resnet50_fpn maskrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2
retinanet_resnet50_fpn retinanet_resnet50_fpn_v2 ssd300_vgg16 ssdlite320_mobilenet_v3_large
"""
OF_TIMM = """
convnext_atto convnext_atto_ols convnext_atto_rms convnext_femto convnext_zepto_rms convnext_tiny convnextv2_atto
convnextv2_femto convnextv2_pico convmixer_768_32 cs3darknet_focus_s cs3darknet_s cs3darknet_m cs3sedarknet_xdw
cs3edgenet_x cspdarknet53 cspresnet50 cspresnext50 darknet17 darknet53 darknetaa53 sedarknet21 cspnext_tiny cspnext_s
densenet121 densenetblur121d dla34 dla46_c dla46x_c dla60 dla60_res2net dla60_res2next dpn48b dpn68 dpn68b
edgenext_xx_small efficientformerv2_s0 efficientnet_b0 efficientnet_b0_gn efficientnet_b1_pruned efficientnet_cc_b0_4e
efficientnet_el efficientnet_es efficientnet_lite0 efficientnet_lite2 efficientnet_blur_b0 efficientnetv2_rw_t
gc_efficientnetv2_rw_t tf_efficientnet_b0 tf_efficientnetv2_b0 fbnetc_100 mixnet_s mixnet_m mnasnet_050 mnasnet_100
mnasnet_small mobilenet_edgetpu_100 mobilenet_edgetpu_v2_xs mobilenetv1_100 mobilenetv2_050 mobilenetv2_100
semnasnet_075 spnasnet_100 tinynet_e fasternet_t0 fastvit_t8 ghostnet_050 ghostnet_100 ghostnetv2_100 ghostnetv3_050
hardcorenas_a hgnet_tiny hgnetv2_b0 hgnetv2_b1 hrnet_w18_small hrnet_w18_small_v2 inception_next_atto
inception_resnet_v2 inception_v3 inception_v4 lcnet_050 lcnet_100 lcnetv2_small mambaout_femto mobilenetv3_large_100
mobilenetv3_small_050 mobilenetv3_small_100 tf_mobilenetv3_small_minimal_100 fbnetv3_b mobilenetv4_conv_small
mobilenetv4_conv_medium mobilenetv4_conv_blur_medium poolformer_s12 poolformerv2_s12 convformer_s18 dm_nfnet_f0
eca_nfnet_l0 nf_regnet_b0 nf_regnet_b1 nf_resnet26 nf_resnet50 nf_seresnet26 nf_ecaresnet26 nfnet_l0 regnetx_002
regnetx_004 regnetx_016 regnety_002 regnety_004 regnetz_005 regnetv_040 regnetz_b16 gernet_s gernet_m mobileone_s0
mobileone_s1 repvgg_a0 repvgg_b1g4 resnet32ts resnet33ts seresnet33ts eca_resnet33ts gcresnet33ts resnext26ts
seresnext26ts eca_resnext26ts gcresnext26ts resnet51q resnet50_clip_gap repghostnet_050 repghostnet_100 repvit_m0_9
repvit_m1 res2net50_26w_4s res2net50_14w_8s res2next50 res2net50d resnest14d resnest26d resnest50d_1s4x24d resnet10t
resnet14t resnet18 resnet18d resnet26 resnet26d resnet26t resnet34 resnet50 resnet50_gn resnet50c resnet50s resnet50t
resnetaa50 resnetblur18 resnetblur50 resnetrs50 resnext50_32x4d resnext50d_32x4d ecaresnet26t ecaresnet50t
ecaresnext26t_32x4d ecaresnetlight seresnet18 seresnet50 seresnext26d_32x4d seresnext50_32x4d seresnextaa101d_32x8d
wide_resnet50_2 resnetv2_18 resnetv2_34 resnetv2_50 resnetv2_50d resnetv2_50d_gn resnetv2_50d_evos resnetv2_50d_frn
resnetv2_50t resnetv2_50x1_bit rexnet_100 rexnet_150 rexnetr_100 selecsls42 selecsls60b legacy_seresnet18
legacy_seresnext26_32x4d legacy_xception skresnet18 skresnet34 skresnext50_32x4d starnet_s1 starnet_s050 tresnet_m
vgg11 vgg11_bn vgg13 vgg16 vgg19_bn ese_vovnet19b_slim ese_vovnet19b_dw ese_vovnet39b vovnet39a eca_vovnet39b
xception41 xception41p xception65 rdnet_tiny csatv2 mobilenetv5_base
"""


def stages(smoke: bool = False) -> dict[str, Stage]:
    by_kind = {TORCHVISION: OF_TORCHVISION, SEGMENTATION: OF_SEGMENTATION, DETECTION: OF_DETECTION, TIMM: OF_TIMM}
    models = ALONE + tuple(kind + name for kind, names in by_kind.items() for name in names.split())
    small = (f"{TORCHVISION}squeezenet1_1", "edsr:1")
    return {"public_models": PublicModels(models=small, size=32) if smoke else PublicModels(models=models)}
