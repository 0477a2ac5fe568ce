"""What every key of the configuration means: one sentence each, and the only place for it.

`--help=SECTION` and docs/configuration.md print the sentences beside what `keys.ranges`
allows and the defaults of `config.base_config`; a test asks for one for every key. PyTC's
keys are explained in the comments of its YAML files, each file its own.
"""

import functools
from collections.abc import Mapping

# A key's name, then its sentence, which goes on in lines that begin with blanks.
_SENTENCES = """
name  What the run is called: its folder below outputs/, and whose published scores stand
  beside its own.
seed  Of every random number: first weights, crops, augmentation, samplers, made tissue.

[data]
kind  Where volumes lie: nisb, in NISB's layout; files, any pairs of files.
root  The folder or address that holds train/, val/ and test/; paths below are relative to it.
cache_gb  Memory, in each process, for chunks that were read from addresses; 0 for none.
train.image  Images to train on: a path or a glob.
train.label  Their labels, in the same order.
train.axes  Order of the axes of both files, as zyx; "" where they say it themselves, or one
  of them does, which then holds for both; else x y z.
train.box  Part of each training volume to use, x0:x1,y0:y1,z0:z1 in voxels; "" for all.
train.sources  Several sources in place of image and label, each (name, (key, value), ...) by
  nisbjax.config.source: image, label, weight, and what else holds for it alone.
train.label_offset  Where labels of a part of the image begin in it: x,y,z in voxels, centre; ""
  for what the files say. The rest is unlabeled.
train.mask  Volumes of the images' shapes that are 0 where there is no loss; "" for none.
val.image  The validation image, for the validation loss, tune and validate.
val.label  Its labels, for the validation loss.
val.skeleton  Its skeletons (pkl, npz, SWC or precomputed), for tune and validate.
val.axes  Order of the axes of image and labels, as train.axes.
val.label_offset  As train.label_offset.
val.mask  As train.mask, for the validation loss.
val.box  Part of the validation volume, for the validation loss and for what is predicted,
  tuned on and scored of it; "" for all.
test.image  The image that test and predict work on.
test.label  Its labels, for adapted Rand and the picture; "" for none.
test.box  Part of the test volume that is predicted and scored; "" for all.
test.axes  Order of the axes of image and labels, as train.axes.
test.skeleton  Its skeletons, as val.skeleton, for NERL and VOI.
voxel_size_nm  Size of a voxel along x, y and z, in nm.
normalize  How grey values become 0 to 1: divide_255; by data.grey_range (range), min_max or
  data.percentiles (percentile); zscore, unbounded; clahe, of tiles of slices.
normalize_per  What min_max, percentile and zscore are of: the whole volume, or each slice of z.
percentiles  Of all grey values, those that become 0 and 1 under percentile, and under clahe
  where the image is not of bytes.
grey_range  The grey values that become 0 and 1 under range; nothing is read for it.
clahe_tile  Edge of a tile of clahe along x and y, in voxels, about.
clahe_clip  Largest share of a tile's voxels that counts in one of 256 grey levels; 1 for no limit.
invert  Exchange dark and bright, where membranes are not as the network knows them.
patch  Voxels of a training crop along x, y and z.
sampling  Which volume a crop is from: uniform, each as often; volume, by its size.
offsets  The voxel that each affinity channel's edge leads to, relative to its own.
edge_stored_at  Where an affinity stands: at the source or the destination of its edge.
unlabeled  Label values nobody vouches for: default (the ten largest of uint32 and uint64),
  numbers as in 0,65535, or "" for none; negative ones always are.
relabel  Give the parts of a label that a crop cuts apart labels of their own.
erosion  Radius along x, y and z by which labels that touch are eroded before training.
long_erosion  The same for the targets of long-range channels; () as data.erosion.
erosion_axes  How both radii are read: legacy, as they stand; xy, the largest on x and y;
  xyz, the largest on all.

[augment]
profile  Which augmentation: aug_banis, or none.
order  Affine before intensity and noise (pytc), or last (banis).
permute  Probability that a crop's axes are exchanged.
rotate90  Probability of quarter turns in each plane.
flip  Probability of a flip, for each axis.
drop  Probability that a crop loses slices of one axis.
drop_slice  Probability of each slice to be lost then.
shift  Probability that slices of one axis are shifted in their plane.
shift_slice  Probability of each slice to be shifted then.
shift_voxels  Furthest shift, in voxels.
affine  Probability of rotation, scaling and shear about the crop's centre.
rotation  Largest angle about each axis, in radians.
scale  Largest relative change of size, for each axis.
shear  How shear coefficients enter: offdiag, written into the matrix; composed, one by one.
shear_range  Largest shear coefficient.
shear_coefficients  How many: 3 (PyTC) or 6 (BANIS).
intensity  Probability that grey values are scaled and shifted.
intensity_scale  Largest relative change of contrast.
intensity_shift  Largest change of brightness.
noise  Probability of Gaussian noise.
noise_std  Its largest standard deviation; white is 1.

[model]
size  Of MedNeXt, small to large.
kernel_size  Of its depthwise convolutions, in voxels.
in_channels  Channels of an image.
out_channels  Affinity channels: as many as data.offsets.
channels  Features at full resolution; each level below has twice as many.
deep_supervision  Learn from coarser outputs too.
remat  What the backward pass computes again, for less memory and more time: block, whole
  blocks; expansion, all after their depthwise convolution; none.
kernels  What computes it on a GPU: auto, for each operation the fastest that was measured to be
  right; pallas, its own kernels where there are some; xla.
upkern  With import: enlarge the file's kernels to model.kernel_size.

[loss]
kind  per_channel_bce: classes balanced in each channel; bce: the plain mean over all edges.
max_pos_weight  Largest weight of a true edge by that balance.
balance_group  Samples over which classes are counted; 0 for the whole batch.
logit_clamp  Logits beyond it count as it; 0 for no bound.
calibre_max  Weight of true edges in the thinnest neurites; 1 for off.
scnp  Voxels across the neighbourhood whose worst edge of its class counts; 1 for off.

[train]
steps  Updates of the weights.
batch_per_device  Crops on each device at a time.
global_batch  Crops on all of them; 0 for batch_per_device times the devices of the first
  start.
accumulate  Batches whose gradients make one step.
precision  Numbers the network computes in: fp16 scales the loss; bf16; fp32.
val_every  Steps between validations; 0 for none.
val_crops  Crops of a validation, always the same.
log_every  Steps between lines of the log; 0 for none.
ckpt_every  Steps between checkpoints that are kept; 0 for none.
ckpt_best  How many of the lowest validation loss are kept.
ckpt_last_minutes  Most minutes of work that a crash may cost.
mesh  Devices along data, over which the batch is split, and along space, over which x of
  each crop is; -1 for all that are left.
cpu_hours  Longest training that begins without a GPU, by estimate.
loader_threads  Threads that read, a batch each; 0 for none of their own.
prefetch  Batches that are read ahead and held in memory; as many as threads read, where that
  is more; 0 for none.

[optimizer]
lr  Highest learning rate of AdamW.
weight_decay  Of weights.
norm_weight_decay  Of biases and the scales of norms.
b1  Decay of the mean of gradients.
b2  Decay of the mean of their squares.
eps  Added to the denominator.
clip  Largest norm of the gradients; 0 for no bound.

[schedule]
kind  How the learning rate falls: cosine, or constant.
steps  Step at which it has reached schedule.min_lr; follows train.steps.
min_lr  Where the cosine ends.
warmup_steps  Steps of a linear rise, within schedule.steps.

[ema]
decay  Of the average of the weights; 0: the average is the weights themselves.
warmup_steps  Steps for which the average is the weights themselves.
validate  Validate the average, not the weights.

[predict]
input  An image instead of the test volume's; "" for that.
axes  Order of its axes, as zyx, where it has no word for it; "" for none.
output  The file of affinities; "" for the run's own.
format  Of the run's own file.
weights  ema, their average; raw, the weights themselves.
window  Voxels of a window along x, y and z; follows data.patch.
overlap  Share of a window that it has in common with the next.
edge_windows  Let windows begin half a window outside, so that borders lie in a middle too.
blend  Weight of a voxel by its place in a window.
channels  Channels of the network that are written, in this order.
activation  From logits to affinities: scale_sigmoid, sigmoid(scale x); sigmoid; none.
scale  That factor; below 1 keeps affinities apart that are close to 1.
dtype  Of the affinities on disk; uint8 means value / 255.
precision  Numbers the network computes in; fp16 needs scale_sigmoid; auto: fp16 on a GPU.
tta  Average over flips of each window, or none.
batch_per_device  Windows on each device at a time.
memory_gb  Memory for boxes under way, in GB.
roi  Part of the image to predict, x0:x1,y0:y1,z0:z1 in voxels; "" for all.
cpu_hours  Longest prediction that begins without a GPU, by estimate.

[qc]
input  A file of affinities instead of the run's; "" for that.
image  The image it was made from; "" for the one that it names.
report  The report; "" for the run's own.
z_stride  Planes between those that the interior's mean is taken of.
k_edge  Of these, how many are left out at each end.
refine_window  Planes at each end that PyTC's search for a cut looks at.
drift_thresh  How far below the interior's mean a plane's may be.
border_width  Width of the x-y ring in which dark voxels are masked.
bg_thresh  Grey value at or below which they are dark.
n_z_border  Planes of the report's table on that ring.
auto_extend  Search beyond qc.refine_window where no plane of it is good.

[mask]
report  A QC report to build the mask from; "" for the run's own.
output  The mask's file; "" for the run's own.

[decode]
input  A file of affinities instead of the run's; "" for that.
axes  Order of its axes, as zyxc, where it has no word for it; "" for none.
output  The segmentation; "" for the run's own.
method  Which decoder, see docs/decoding.md.
threshold  Affinities above it join voxels.
threshold_from  value, decode.threshold; study, the best of tune; or a number.
affinity_mask  auto, made by QC; a file; or "" for none.
mask_edges  Which edges a masked voxel takes away: both, all that touch it; source, its own.
min_size  Segments of fewer voxels become background.
low_threshold  grow: seeds grow along affinities down to it; mutex: long-range edges repel
  below it.
min_seed  grow: voxels of a component that make it a seed.
grow_margin  grow: voxels that two seeds reach this closely stay background; 0: none do.
attract  chain: logits above it attract along edges to the next voxel.
repel  chain: logits below it repel along long-range edges.
anchor  chain, chain3: voxels of a fragment that grows.
low  chain, chain3: affinities above it are grown along.
margin  chain, chain3: voxels that two fragments reach this closely stay background.
joins  chain, chain3: how fragments join, in order: average, absorb, quantile; () joins none.
faces  With joins: common faces that two fragments need to touch.
short  With average, absorb: logit of a common face that says nothing.
long  With average, absorb: the same of a long-range link, where the file has any.
absorb_below  With absorb: smaller fragments than this join the larger one of the highest mean.
absorb_least  With absorb: logit beyond short and long that this mean exceeds.
quantile  With quantile: waterz', of the affinities of common faces, in percent.
quantile_threshold  With quantile: fragments join while 1 less the quantile is below it.
shave  chain, chain3: voxels that segments lose in the end where they touch; 0: none.
memory_gb  Memory of decode, qc, tune and evaluate, in GB.

[evaluate]
segmentation  A segmentation instead of the run's newest; "" for that.
skeleton  Skeletons instead of the volume's; "" for those.
label  Dense labels to compare with; "" for none.
metrics  Which scores; auto: nerl and voi with skeletons, adapted_rand and voi of dense labels
  without.
ceiling  Beside NERL, say what the volume's own labels score.

[tune]
study  Name of the study.
storage  A .db or .journal file, or a database's URL; "" for the run's own.
objective  What a study maximises, of voi and adapted_rand the lowest; auto: nerl_mean with
  skeletons, adapted_rand of data.val.label without.
sampler  grid, all values; tpe, random or qmc draw tune.trials of them.
thresholds  The grid's thresholds.
grid  Known thresholds instead of these; "" for none.
trials  How many a sampler completes.
space  Keys of decode and their ends, (name, low, high[, how many]); () for the method's own.
allow_test_data  Tune on the test volume, which the results will say.

[skeletonize]
label  Dense labels to make skeletons of; "" for those of val and test that have none.
output  The file, .pkl; an .npz goes beside it. "" for where data.<split>.skeleton names one,
  or else below outputs/.
also  Formats that are written beside it too.
roi  Part of the labels, x0:x1,y0:y1,z0:z1 in voxels; "" for the volume's own box, or all.
scale  A traced path clears its surroundings up to this times its radius, plus const_nm; no
  branch begins that ends there.
const_nm  See scale.
dust_voxels  Labels of fewer voxels have no skeleton.
tick_nm  Branches that end and are shorter are taken away; 0 keeps all.
box_shape  The largest boxes that are skeletonized at once, along x, y and z.
memory_gb  Memory of the boxes under way, in GB.

[validate]
poll_seconds  With --watch: how often it looks for new checkpoints.
idle_minutes  With --watch: how long it waits for one; 0 for as long as it takes.
keep  Keep predictions and segmentations, each as large as the volume.

[synth]
kind  Of tissue.
root  Where the cubes go; "" for below the run.
shape  Voxels of a cube along x, y and z.
volumes  Names of the cubes, each a tissue of its own.

[convert]
format  Of the output: zarr2, zarr3, ome-zarr-0.4, ome-zarr-0.5, precomputed, n5, hdf5, tiff,
  nifti, nifti-gz, blosc2; auto, by its name.
kind  What the input holds: image, labels, affinities; auto, by its type and axes. Labels
  are reduced by majority, all else by the mean.
axes  Order of the axes of an input that does not say it, as zyx; "" for its own.
order  Of the axes of zarr, HDF5 and Blosc2 outputs, as zyx; "" for x y z, with channels last, or first
  of affinities. Other formats have their own.
dtype  Of the output, a type that holds every value of the input's; "" for the input's. Labels:
  any integer type, refused where one does not fit.
voxel_size_nm  Size of a voxel x y z that the output says, in nm; () for the input's.
downsample  Scales of a pyramid besides the finest, each half of the one before along all axes
  but those whose voxels are already twice as long as the others.
chunks  Voxels of a chunk along x, y and z; () for 64 along each.
shards  Voxels of a file of zarr v3 that holds many chunks; () for one file a chunk.
compression  Of chunks: blosc (zstd in it), gzip, zstd, zlib of TIFF, none, or
  compressed_segmentation of precomputed; auto, the format's usual one.
memory_gb  What the conversion may take.

[remote]
endpoint  Of a server that speaks S3 and is not Amazon's, http://host:port; "" for that.
region  Of an S3 bucket; "" to let it be found.
anonymous  Ask S3 without an account, of buckets that anyone may read.
profile  The account of ~/.aws that S3 is asked with; "" for that of the environment.
timeout_s  Seconds of silence after which a request to an address is given up and tried again.
retries  How often it is, before the run ends.

[cluster]
kind  Who works on boxes: threads here, local Dask processes, or a dask scheduler's workers.
address  Of that scheduler, or its scheduler file.
workers  How many; 0 for one for each core.
"""


@functools.cache
def meanings() -> Mapping[str, str]:
    """The sentence of each key by its dotted name, in the order in which they are shown."""
    found: dict[str, str] = {}
    section = key = ""
    for line in _SENTENCES.strip().splitlines():
        if line.startswith("["):
            section = line.strip("[]") + "."
        elif line.startswith(" "):
            found[key] += " " + line.strip()
        elif line:
            name, _, sentence = line.partition("  ")
            key = section + name
            found[key] = sentence
    return found
