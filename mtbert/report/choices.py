"""What the paper leaves open, and what we chose: sentences for the page, which may hold `code`."""

CHOICES = (
    "The cosine baseline calls a pair a duplicate when cos(u, v) > 0. Cosines of [CLS] embeddings are nearly always positive, so "
    "it calls almost every pair a duplicate: compare its paraphrase accuracy with the majority-class row.",
    "Where a pair's similarity is a cosine, the STS prediction is 2.5 (1 + cos(u, v)): -1 maps to 0 and 1 to 5. The "
    "correlation does not depend on this map.",
    "From Key Update 1 on the paraphrase task has a linear head over (u, v, |u−v|); Best Performance uses (u, v, c) for both pair "
    "tasks. The paper gives the concatenations for STS only.",
    "[CLS] pooling goes through BERT's pooler, tanh(W h + b), as in the course's framework. Mean and max pooling leave the "
    "pooler out: it is not trained, gets no adapter and is not counted as trainable.",
    "Mean and max pooling run over all tokens of a sequence, including [CLS] and [SEP].",
    "The weights after the last epoch are evaluated. There is no early stopping and no choice of epoch by dev score.",
    "AdamW has beta 0.9 and 0.999, eps 1e-6 and no weight decay, the defaults of the course's framework; the learning rate is "
    "constant.",
    "The paper does not state batch size, dropout, margin, the threshold that maps similarities to ±1, DoRA's alpha and learning "
    "rate, or the seed; `params.yaml` has our choices, with comments.",
    "DoRA starts from the pretrained weights. It replaces every linear layer of the encoder; embeddings, norms, biases and "
    "heads still train (`train_rest: true`), which matches the paper's 'around 20%' of trainable parameters.",
    "Each row is one seed and the development sets are small: the standard error of an accuracy a on n examples is "
    "√(a(1−a)/n), 1.5 percentage points for 0.4 on 1,101 sentences.",
)
