"""The defaults that the pages share. All defaults of the project are in this folder."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.fields import GENERATED


def defaults(data: str) -> Any:
    """Returns what the four pages have in common for a corpus: "imdb", "verdicts", "agreement", or another `data.name`."""
    config: Any = ConfigDict()  # Any, because its fields have no static types
    config.seed = 0
    config.seeds = placeholder(str)  # such as 0..9: one program trains a run with each of them, in WORKDIR/seed_0 and so on
    config.epochs = 10
    config.batch_size = 512  # examples; the last batch of an epoch may be smaller
    config.patience = placeholder(int)  # epochs without a better val_accuracy after which training stops; None: never

    config.init_from = placeholder(str)  # a run folder, from whose parameters a new run starts where name and shape agree
    config.optimizer = "keras_adam"  # keras_adam | adamw | sgd | relative_adam
    config.learning_rate = 1e-3  # the highest, after the warm-up
    config.schedule = "constant"  # constant | cosine: to 0 at the last step
    config.warmup_steps = 0  # in which the learning rate rises from 0
    config.weight_decay = 0.0  # adamw only
    config.momentum = 0.0  # sgd only
    config.label_smoothing = 0.0  # the share of the label's probability that is spread over all classes, in the training loss

    # These four and data.dir change no result.
    config.devices = placeholder(int)  # how many; None: all
    config.steps_per_call = placeholder(int)  # steps of one compiled call; None: as many as take about a second
    config.runs_per_call = placeholder(int)  # of several seeds, how many are trained in parallel; None: 1 on a CPU, else all
    config.checkpoint_every = placeholder(int)  # steps; None: as often as saving takes a hundredth of the time

    config.data = ConfigDict()
    config.data.name = data  # imdb | verdicts | agreement | csv | tfds:NAME | MODULE:NAME of a registered source; docs/data.md
    config.data.dir = placeholder(str)  # where data is kept, prepared; None: TFDS_DATA_DIR, then ~/tensorflow_datasets
    config.data.path = placeholder(str)  # csv only: a file, or train=FILE,test=FILE, and validation=FILE if there is one
    config.data.text = placeholder(str)  # the column of the texts; None: the only one with a usual name, such as review
    config.data.label = placeholder(str)  # the column of the labels; None: the only one with a usual name, such as sentiment
    config.data.encoding = placeholder(str)  # of the files; None: utf-8
    config.data.validation_share = placeholder(float)  # of what is no test text; None: a tenth; not with a file of them
    config.data.test_share = placeholder(float)  # of all texts; None: a tenth; not with a file of them
    config.data.split_seed = 0  # of the choice of these texts, which keeps the shares of the labels
    config.data.vocabulary_size = placeholder(int)  # with padding, start and unknown; None: the corpus' own
    config.data.max_length = placeholder(int)  # tokens that are kept of a text; None: the corpus' own
    config.data.keep = "last"  # last | first | ends: which tokens are kept of a longer text; ends: both, a half of them each
    config.data.lowercase = True  # ASCII letters only
    config.data.unit = "word"  # word | character: what a token is, in pairs of texts only; see seq2seq_data
    config.data.filters = placeholder(str)  # characters that separate words, beside space and newline; None: those of Keras
    config.data.marks = ""  # characters that are words of their own, such as !?
    config.data.ngrams = placeholder(int)  # words of the longest n-grams, for the bodies ngram_*; None: for the other bodies
    config.data.ngram_features = 65_536  # n-grams that the model has numbers for
    config.data.ngram_choice = "frequency"  # frequency | chi2: of the training texts | hashed: all n-grams, without a list
    config.data.ngram_context = 0  # the most frequent words, whose relevance model.logits=context reads around an n-gram

    config.model = ConfigDict()
    config.model.body = "transformer"  # also: attention | multi_head | convolution | recurrent | ngram_linear | ngram_attention
    config.model.num_classes = placeholder(int)  # None: those of the data
    config.model.embed_dim = 16
    config.model.num_layers = 1
    config.model.num_heads = 2
    config.model.key_dim = 16  # features of a head
    config.model.output_dims = (16, 20)  # one for each layer; bodies multi_head, convolution and recurrent only
    config.model.feedforward_dim = 64  # body transformer only
    config.model.kernel_size = 5  # of body convolution, and of ngram_attention with logits=context
    config.model.cell = "gru"  # gru | lstm: body recurrent only
    config.model.positions = "none"  # none | learned | sinusoidal | sinusoidal_split | rotary | alibi | t5
    config.model.dropout_rate = 0.0  # of the output of every sub-layer of the body
    config.model.mask_padding = False  # True excludes padding from the keys and from the pooling
    config.model.logits = "tied"  # of ngram_attention: tied to places in the text | own: of each n-gram | context: see its page
    config.model.initial_values = "zeros"  # of ngram_*: zeros | log_ratios, of how many training texts of each class have them
    config.model.implementation = "auto"  # of the attention: auto | fused | chunked | chunked_autodiff | dense
    config.model.dtype = "float32"  # float32 | bfloat16: of activations and products; parameters and loss are float32

    if data in GENERATED:  # 8,000 texts of at most 23 words
        config.epochs = 16  # with 10 the mean of five seeds is 0.945, because one of them learns late
        config.batch_size = 32
        config.learning_rate = 3e-3
        config.model.mask_padding = True
    if data == "agreement":
        config.epochs = 30  # with 20, one of three runs ends at 0.957
        config.batch_size = 64
        config.schedule = "cosine"
        config.warmup_steps = 250
        config.model.num_layers = 2
        config.model.num_heads = 4
        config.model.embed_dim = 32
    return config
