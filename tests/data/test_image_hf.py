"""A Hugging Face dataset on the disk. Needs pyarrow, an extra: without it these are skipped."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.core.errors import LabError
from convolab.data import image_hf, image_source
from convolab.data.catalog import load
from convolab.data.image_io import decode_image, resize_and_center_crop

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
import pyarrow.parquet as pq  # noqa: E402

DRAW = np.random.default_rng(0)
NAMES = ["cat", "dog"]


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(DRAW.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def table(count: int = 6, *, labels=None, names=NAMES, image="image", label="label", path="{}.png", **columns):
    """As the library writes it: structs of bytes and path, and what it knows of them in the schema's metadata."""
    images = [{"bytes": png(), "path": path.format(index) if path else None} for index in range(count)]
    values = [index % 2 for index in range(count)] if labels is None else labels
    made = pa.table({image: images, label: values, **columns})
    features = {
        image: {"_type": "Image"},
        label: {"names": names, "_type": "ClassLabel"} if names else {"_type": "Value"},
    }
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def save_to_disk(folder: Path, made, *, shards: int = 2) -> None:
    """What `datasets.Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    files = []
    size = -(-len(made) // shards)
    for index in range(shards):
        files.append({"filename": f"data-{index:05}-of-{shards:05}.arrow"})
        with pa.ipc.new_stream(folder / files[-1]["filename"], made.schema.remove_metadata()) as writer:
            writer.write_table(made.slice(index * size, size))
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))
    info = json.loads(made.schema.metadata[b"huggingface"])["info"]
    (folder / "dataset_info.json").write_text(json.dumps(info))


def check(dataset, *tables) -> None:
    """The images, labels and names of tables, in their order."""
    rows = [row for made in tables for row in made.to_pylist()]
    assert dataset.labels.tolist() == [row["label"] for row in rows]
    assert dataset.names == tuple(row["image"]["path"] for row in rows)
    for image, row in zip(dataset.images, rows, strict=True):
        expected = decode_image(io.BytesIO(row["image"]["bytes"]), "", 10**6)
        assert torch.equal(image, resize_and_center_crop(expected, (8, 8), 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    ["{}-{:05}-of-00002.parquet", "data/{}-{:05}.parquet", "plain_text/{}_{}.parquet", "{}.{}.parquet"],
)
def test_parquet_files_are_read_as_the_hub_names_them(tmp_path: Path, pattern: str) -> None:
    made = {}
    for split in ("train", "validation", "test"):
        for index in range(2):
            made[split, index] = table(100 if (split, index) == ("train", 0) else 4)
            path = tmp_path / pattern.format(split, index)
            path.parent.mkdir(exist_ok=True)
            pq.write_table(made[split, index], path)
    splits = load(f"hf:{tmp_path}", image_size=8)
    assert splits.train.classes == ("cat", "dog")
    for split, dataset in splits.by_name.items():
        check(dataset, made[split, 0], made[split, 1])
    assert set(splits.by_name) == {"train", "validation", "test"}


@pytest.mark.slow
def test_what_save_to_disk_wrote_is_read(tmp_path: Path) -> None:
    made = {"train": table(140), "test": table(5)}
    for split, some in made.items():
        save_to_disk(tmp_path / "set" / split, some)
    (tmp_path / "set/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    splits = load("hf:set", tmp_path, image_size=8)
    for split, some in made.items():
        check(splits.by_name[split], some)
    assert splits.train.classes == ("cat", "dog")
    alone = load("hf:set/train", tmp_path, image_size=8)  # without splits a fifth is for testing
    assert (len(alone.train), len(alone.test)) == (112, 28)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a"] * 3, ("a", "b")),
        ([10, 2] * 3, ("2", "10")),
        ([7, 7, 7, 0, 0, 0], ("0", "7")),
        (["1", "01", "001"] * 2, ("001", "01", "1")),
    ],
)
def test_without_class_names_the_labels_are_the_classes(tmp_path: Path, labels, classes) -> None:
    pq.write_table(table(labels=labels, names=None), tmp_path / "train.parquet")
    dataset = load(f"hf:{tmp_path}", image_size=8).train
    assert dataset.classes == classes
    assert [classes[label] for label in dataset.labels] == [str(label) for label in labels]


def test_a_dataset_whose_splits_have_other_names_is_split_here_however_many_files_it_has(tmp_path: Path) -> None:
    made = table(40)
    save_to_disk(tmp_path / "pets" / "full", made, shards=2)
    (tmp_path / "pets" / "dataset_dict.json").write_text(json.dumps({"splits": ["full"]}))
    splits = load(f"hf:{tmp_path / 'pets'}", image_size=12)
    assert len(splits.train) + len(splits.test) == 40


def test_images_without_a_path_are_named_by_their_place_and_those_without_bytes_are_skipped(tmp_path: Path) -> None:
    made = table(6, path=None).to_pylist()
    made[3]["image"] = {"bytes": None, "path": "/etc/passwd"}
    made[4]["image"] = {"bytes": b"no image", "path": None}
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "train.parquet")
    splits = load(f"hf:{tmp_path}", image_size=8)
    assert splits.train.names == ("train[0]", "train[1]", "train[2]", "train[5]")
    assert splits.unreadable[0] == "/etc/passwd: the dataset holds only its path, and no bytes"
    assert splits.unreadable[1].startswith("train[4]: not an image")


def test_images_without_a_path_are_counted_within_their_split(tmp_path: Path) -> None:
    for name in ("test-0", "train-0", "train-1"):
        pq.write_table(table(4, path=None), tmp_path / f"{name}.parquet")
    splits = load(f"hf:{tmp_path}", image_size=8)
    assert splits.test.names == tuple(f"test[{index}]" for index in range(4))
    assert splits.train.names == tuple(f"train[{index}]" for index in range(8))


def test_an_image_for_which_memory_was_short_once_is_read_the_next_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "root"))
    monkeypatch.setattr(image_source, "MAX_MEMORY_BYTES", 0)  # so that what is decoded is kept on the disk
    monkeypatch.setattr(image_source, "SETTLING_SECONDS", 0.0)
    pq.write_table(table(), tmp_path / "train.parquet")

    is_short = [True, False, False, False, False, False]

    def decode(*args: object) -> torch.Tensor:
        if is_short.pop():
            raise LabError("there is not enough memory") from MemoryError()
        return decode_image(*args)

    with monkeypatch.context() as patch:
        patch.setattr(image_hf, "decode_image", decode)
        assert load(f"hf:{tmp_path}", image_size=8).unreadable == ("there is not enough memory",)
    assert load(f"hf:{tmp_path}", image_size=8).unreadable == ()


def test_a_test_split_without_labels_is_left_out_with_a_note(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "train.parquet")
    pq.write_table(table(labels=[-1] * 6), tmp_path / "test.parquet")
    pq.write_table(table(), tmp_path / "unsupervised.parquet")
    splits = load(f"hf:{tmp_path}", image_size=8)
    assert not splits.has_test
    assert [note for note in splits.notes if "left out" in note or "not read" in note] == [
        "not read, because train, validation or test does not begin its name: unsupervised.parquet",
        "the test images are left out: they have no labels (all are -1)",
    ]


def test_the_finer_of_two_labels_is_taken(tmp_path: Path) -> None:
    pq.write_table(table(image="img", label="fine_label", coarse_label=[0] * 6), tmp_path / "train.parquet")
    assert load(f"hf:{tmp_path}", image_size=8).train.labels.tolist() == [0, 1] * 3


def write_parquet(folder: Path, **options: object) -> None:
    pq.write_table(table(**options), folder / "train.parquet")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "has no parquet files and no state.json of save_to_disk: give a folder"),
        (lambda folder: (folder / "train.parquet").write_bytes(b"PAR1 no"), "is damaged"),
        (
            lambda folder: write_parquet(folder, labels=[0, 5] * 3),
            "the labels run from 0 to 5, and 2 classes are named",
        ),
        (lambda folder: write_parquet(folder, labels=[0, None] * 3), r"1\.png has no label in the column label"),
        (
            lambda folder: write_parquet(folder, labels=[0.5] * 6),
            "has the columns image, label: call that of the labels",
        ),
        (
            lambda folder: pq.write_table(pa.table({"label": [0, 1]}), folder / "train.parquet"),
            "one of them, called image",
        ),
        (
            lambda folder: (folder / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}'),
            r"state\.json lists what is not a name in its folder",
        ),
        (lambda folder: (folder / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}'), "is missing"),
        (lambda folder: (folder / "state.json").write_text("[" * 10_000), "nested too deeply|not JSON"),
        (lambda folder: (folder / "dataset_dict.json").write_text('{"splits": 3}'), "names no splits"),
        *(
            (
                lambda folder, splits=splits: (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits})),
                r"dataset_dict\.json lists what is not a name in its folder",
            )
            for splits in (["../other"], ["train", ".."], [""], ["/tmp"], ["train\0"], [3])
        ),
    ],
)
def test_what_is_no_dataset_is_refused_in_one_line(tmp_path: Path, make, message: str) -> None:
    make(tmp_path)
    with pytest.raises(LabError, match=message) as raised:
        load(f"hf:{tmp_path}", image_size=8)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_parquet_file_that_claims_far_more_than_it_has_is_refused_before_it_is_read(tmp_path, monkeypatch) -> None:
    pq.write_table(
        pa.table({"image": [{"bytes": bytes(3_000_000), "path": ""}] * 2, "label": [0, 1]}), tmp_path / "train.parquet"
    )
    monkeypatch.setattr(image_hf, "MIN_EXPANSION_BYTES", 1000)
    with pytest.raises(LabError, match="claims far more bytes than it has"):
        load(f"hf:{tmp_path}", image_size=8)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_an_arrow_file_that_is_compressed_is_refused_because_it_may_hold_any_number_of_bytes(
    tmp_path: Path, compression: str | None
) -> None:
    made = table()
    save_to_disk(tmp_path / "set", made, shards=1)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    path = tmp_path / "set/data-00000-of-00001.arrow"
    with pa.ipc.new_stream(path, made.schema.remove_metadata(), options=options) as writer:
        writer.write_table(made)
    if compression is None:
        assert load("hf:set", tmp_path, image_size=8).train.classes == ("cat", "dog")
        return
    with pytest.raises(LabError, match=r"00001\.arrow is compressed, so how much it holds is not known") as caught:
        load("hf:set", tmp_path, image_size=8)
    assert "\n" not in str(caught.value)


def test_a_damaged_arrow_file_is_one_line(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "set", table(), shards=1)
    path = tmp_path / "set/data-00000-of-00001.arrow"
    content = bytearray(path.read_bytes())
    for cut in (0, 10, len(content) // 2, len(content) - 9):
        path.write_bytes(content[:cut])
        with pytest.raises(LabError) as raised:
            load("hf:set", tmp_path, image_size=8)
        assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", pytest.param("arrow", marks=pytest.mark.long)])
def test_a_file_with_any_byte_changed_is_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pq.write_table(table(), tmp_path / "train.parquet")
        path = tmp_path / "train.parquet"
    else:
        save_to_disk(tmp_path / "set", table(), shards=1)
        path = tmp_path / "set/data-00000-of-00001.arrow"
    content = path.read_bytes()
    draw = np.random.default_rng(1)
    refused = []
    for place in draw.integers(0, len(content), 150):
        changed = bytearray(content)
        changed[place] = draw.integers(0, 256)
        path.write_bytes(changed)
        try:
            load(f"hf:{path.parent}", image_size=8)
        except LabError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in message for message in refused)


def test_a_file_with_more_rows_than_when_its_labels_were_read_is_refused(tmp_path: Path) -> None:
    pq.write_table(table(6), tmp_path / "train.parquet")
    shards = [image_hf.Shard("train", tmp_path / "train.parquet")]
    with pytest.raises(LabError, match=r"^the set is damaged"):
        list(image_hf.decode_shards(shards, "image", ["0.png"] * 5, (8, 8), "the set"))
