"""What training costs here, beside the sources' way of training and beside torch.ao, in one run.

    python -m benchmarks.training [--parts cpu gpu avx2 network learned]

Times are seconds on the clock around whole steps (data, forward, backward, optimizer). Every round gives each
contender a turn, every second round in reverse, so that a busy machine slows all alike; a turn is some steps that are
not counted and then `--steps` or, where data is loaded, `--epoch-steps` that are. A first round is not counted. What
is reported are ratios: of each round, then their median, and in the table their range.

Loading: ours is suite.train.fit, whose images lie on the device as uint8 and are augmented there. The sources' way is
a DataLoader of worker processes over PIL pictures, eager float32 in contiguous memory (on a GPU autocast, the stronger
peer), and meters that read the loss of each step. It is timed to the end of an epoch: starting its workers is
not counted, nor what they have loaded by then.

Steps: the same batches for all, augmented beforehand. QAT is source 001's, 8 bits, symmetric. `sources` runs it with
quantizers as the source wrote them, one autograd operation after another; torch.ao is prepare_qat_fx with the qconfig
of "x86", which fuses BatchNorm and rounds more tensors than ours (the table counts them). Both are float32, as they
come; ours is O2 in bfloat16, and the JSON line divides by it. Divided by ours in O0, like for like, they are in the
table; so are two more rows, in which their quantizers replace ours, all else being ours in O0.

On a GPU (`--parts gpu`): images a second of the compiled fit, in O2; QAT beside float; and how often the host waits
for the device within our steps, as torch.profiler counts. With `--device cpu` that part is rehearsed and says so.

On a CPU of AVX2 (`--parts avx2`): a step in O2, bfloat16, beside one in O0, in a process in which torch and oneDNN use
no more than AVX2, so that torch has no kernels for bfloat16. Where a CPU is no x86, nothing holds it back; the table
names what multiplied.

A large network on a CPU (`--parts network --network resnet50`): training and evaluation with loading, ours and the
sources', and, with `--data`, a whole post-training recipe in the time of the sources' evaluation of the test images.

Methods that learn (`--parts learned`): a step of each, of LSQ also with distillation, damping and freezing, beside a
float step in the same loop: the time, and the peak of the memory of tensors above what is held between steps, by the
profiler's record of each allocation, on a GPU by its allocator. On a CPU in O0, on a GPU compiled in O2. The JSON line
divides both by those of float.
"""
