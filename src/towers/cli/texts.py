"""What `--help` says. After each `$ ` stands a real command with its real output: a test runs it and compares."""

TOP = """
Two-tower sentence models: one tower reads a sentence, the other a second one, and the network says whether they
belong together.

  $ towers fit --epochs 3
  pairs: train 2000, dev 250, test 250
  vectors: sample, 300 numbers a word; 100.00 % of 40972 tokens and 88 of 88 words have a vector
  network: two towers, left any number of words, right 5 words, 39,313 parameters
  epoch 1/3   train loss 0.6936  accuracy 0.5205  AUC 0.5168   dev loss 0.6876  accuracy 0.5320  AUC 0.5963   1.6 s
  epoch 2/3   train loss 0.4140  accuracy 0.8855  AUC 0.9484   dev loss 0.1808  accuracy 0.9640  AUC 0.9754   1.5 s
  epoch 3/3   train loss 0.1418  accuracy 0.9695  AUC 0.9722   dev loss 0.1443  accuracy 0.9640  AUC 0.9691   1.4 s
  kept epoch 3, best dev loss: loss 0.1443  accuracy 0.9640  AUC 0.9691
  test, 250 pairs: accuracy 0.9640 (majority class 0.5080)  AUC 0.9761  loss 0.1363
  saved in towers-run: config.json, model.safetensors, metrics.json, curves.png
"""

FIT = """
Learn from sentence pairs. With no option: the original network on a built-in sample, saved to towers-run or to the
next free towers-run-N. Ctrl-C saves, and says how to go on.

  $ towers fit --epochs 1 --hidden 4 --out small
  pairs: train 2000, dev 250, test 250
  vectors: sample, 300 numbers a word; 100.00 % of 40972 tokens and 88 of 88 words have a vector
  network: two towers, left any number of words, right 5 words, 38,977 parameters
  epoch 1/1   train loss 0.6972  accuracy 0.4975  AUC 0.4968   dev loss 0.6955  accuracy 0.4240  AUC 0.5146   1.5 s
  kept epoch 1, best dev loss: loss 0.6955  accuracy 0.4240  AUC 0.5146
  test, 250 pairs: accuracy 0.4560 (majority class 0.5080)  AUC 0.5011  loss 0.6930
  saved in small: config.json, model.safetensors, metrics.json, curves.png

  $ towers fit --resume small --epochs 2 | tail -n 1
  saved in small: config.json, model.safetensors, metrics.json, curves.png

With files of your own (TSV, CSV, JSON lines or Parquet, by their ending; vectors as GloVe or word2vec text, word2vec
binary or fastText .vec):

  towers fit --train sick.train.tsv --dev sick.dev.tsv --test sick.test.tsv --vectors glove.840B.300d.txt \\
      --left-column tokens1 --right-column tokens2 --split spaces --right-words any --out sick
"""

PREDICT = """
Add the column `probability` to a file of sentence pairs of any size, in the file's own order. Word vectors and column
names are those that the model was trained with; options replace them.

  $ printf 'sentence1\\tsentence2\\na happy ram was spotted by the lass\\tthe lass noticed a ram\\n' >pairs.tsv
  $ towers predict --model towers-run --pairs pairs.tsv --out -
  sentence1	sentence2	probability
  a happy ram was spotted by the lass	the lass noticed a ram	0.9330087

Files are TSV, CSV, JSON lines or Parquet, by their ending or --format. A file appears whole, at the end. Standard
output has no mark for its end: it is whole if the exit code is 0.
"""

VERIFY = """
Prove the shape contracts of a module for all sizes, on symbolic sizes and without data. MODULE names an nn.Module, or
something that gives one when it is called without arguments.

  $ towers verify towers:Tower
  Tower: proven
  for all batch >= 0, words >= 2
    module    contract             verdict
    (itself)  Tower.forward        proven
    (itself)  Ragged.from_padded   proven
    conv      PhraseConv.forward   proven
    pool      FeaturePool.forward  proven
    lstm      RaggedLSTM.forward   proven
  8 runs, 0.67 s

  towers verify my_package.model:ENCODER --contract "batch time 512 -> batch time 512" --where "time <= 1000"
  towers verify my_package.model:EMBEDDING --contract "Int batch words -> batch words 300"

In a contract a name of jaxtyping's (Float, Int, Bool, Int32, ...) before the axes of a tensor says its dtype; without
one a tensor that comes in has the dtype of the module's parameters.

Exit code 0: proven. 1: not. 2: it could not be tried.
"""

EXPLAIN = """
Walk both towers stage by stage: what arrives, what the stage demands, what leaves, how many weights it has and why.
Then answer, by trying it out, why an LSTM accepts any number of steps, and what happens with a wrong width.

  $ towers explain --words 9 | head -n 6
  left: sentences of any number of words from 2
    conv: PhraseConv: every 2 neighbouring words become a phrase of 32 features
      arrives  (batch, words, 300)  here (3, 9, 300)
      demands  batch words 300; batch >= 0; words >= 2
      leaves   (batch, words-1, 32)  here (3, 8, 32)
      weights  19,232 = 32 filters x (2 words x 300 + 1 bias)
"""
