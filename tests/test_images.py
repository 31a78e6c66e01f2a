"""Images as people have them: photographs, palettes, animations, odd files, folders of splits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeprate.data.image_folders import ImageFolder, read_image_folder
from keeprate.errors import InputError
from keeprate.reading.image_files import find_images
from keeprate.reading.image_lists import image_paths
from keeprate.reading.images import decode_images, read_images
from tests.sources import Image, pa, pixels, png, write_images

ImageOps = pytest.importorskip("PIL.ImageOps")


def photo(height: int = 8, width: int = 12, seed: int = 0) -> Any:
    return Image.fromarray(pixels(1, (height, width, 3), seed)[0])


def saved(folder: Path, images: dict[str, Any], **options: Any) -> list[Path]:
    """Save pictures under their names; bytes and texts are written as they are."""
    paths = []
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            path.write_bytes(image)
        elif isinstance(image, str):
            path.write_text(image)
        else:
            image.save(path, **options)
        paths.append(path)
    return paths


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def exif(orientation: int) -> Any:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def first_channels(image: Any) -> np.ndarray:
    array = np.asarray(image)
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)


# Decoding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    [path] = saved(tmp_path, {f"a.{suffix}": photo()}, exif=exif(orientation), **options)
    images = read_images([path], "photographs")
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(images.pixels[0], first_channels(expected))
    assert images.pixels.shape[2:] == ((8, 12) if orientation < 5 else (12, 8))
    assert images.notes == ()


def test_a_turned_photograph_is_of_the_size_of_the_others(tmp_path: Path) -> None:
    """The stored size differs, the upright one does not."""
    paths = saved(tmp_path, {"a.jpg": photo(8, 12)})
    paths += saved(tmp_path, {"b.jpg": photo(12, 8)}, exif=exif(6))
    images = read_images(paths, "photographs")
    assert images.pixels.shape == (2, 3, 8, 12) and images.notes == ()


def test_damaged_exif_data_leave_the_picture_readable(tmp_path: Path) -> None:
    [path] = saved(tmp_path, {"a.jpg": photo()}, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f\x01\x01")
    assert read_images([path], "photographs").pixels.shape == (1, 3, 8, 12)


def with_palette(*, transparent: bool) -> bytes:
    buffer = io.BytesIO()
    options = {"transparency": bytes([0, 128, 255])} if transparent else {}
    photo().quantize(8).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("RGB", 3), ("CMYK", 3), ("YCbCr", 3), ("LA", 4), ("RGBA", 4), ("P", 3)],
)
def test_each_mode_becomes_grey_rgb_or_rgba(tmp_path: Path, mode: str, channels: int) -> None:
    picture = (
        photo().quantize(8) if mode == "P" else photo().convert("L" if mode == "LA" else "RGB")
    )
    picture = picture.convert(mode)
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    images = read_images(saved(tmp_path, {f"a.{suffix}": picture}), "pictures")
    expected = picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    np.testing.assert_array_equal(images.pixels[0], first_channels(expected))
    assert images.notes == ()


@pytest.mark.parametrize("transparent", [True, False])
def test_palettes_keep_their_transparency(transparent: bool) -> None:
    content = with_palette(transparent=transparent)
    images = decode_images(pa.chunked_array([[content, content]]), "table")
    with Image.open(io.BytesIO(content)) as image:
        expected = image.convert("RGBA" if transparent else "RGB")
    np.testing.assert_array_equal(images.pixels[1], first_channels(expected))
    assert images.pixels.shape == (2, 4 if transparent else 3, 8, 12)


def deep(folder: Path, kind: str, values: np.ndarray) -> Path:
    path = folder / f"{kind}.img"
    if kind == "PGM":
        head = f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode()
        path.write_bytes(head + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path, kind)
    return path


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
def test_sixteen_bits_are_scaled_and_keep_their_order(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    images = read_images([deep(tmp_path, kind, values)], "scans")
    assert images.pixels.shape == (1, 1, 16, 16)
    np.testing.assert_array_equal(images.pixels[0, 0], values // 256)
    assert images.notes == ("1 16-bit image was scaled to 8 bits.",)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_thirty_two_bits_are_refused(tmp_path: Path, kind: type) -> None:
    saved(tmp_path, {"a/0.tif": Image.fromarray(np.ones((4, 4), kind)), "b/0.png": photo()})
    for read in (lambda: read_images([tmp_path / "a/0.tif"], "x"), lambda: folder_of(tmp_path)):
        with pytest.raises(InputError, match=r"8 or 16 bits a channel, got mode [FI] in .*0\.tif"):
            read()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue")]
    path = tmp_path / "moving"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], lossless=True)
    images = read_images([path, path], "animations")
    assert images.pixels[0, 0].min() > 250 and images.pixels[0, 2].max() < 5
    assert images.notes == ("2 animated images: the first frame was taken.",)


def test_grey_beside_colour_becomes_rgb(tmp_path: Path) -> None:
    paths = saved(tmp_path, {"a.png": photo().convert("L"), "b.png": photo()})
    images = read_images(paths, "pictures")
    assert images.pixels.shape == (2, 3, 8, 12)
    assert (images.pixels[0, 0] == images.pixels[0, 2]).all()
    assert images.notes == ("1 grey image was made RGB.",)


def test_transparency_beside_colour_is_dropped(tmp_path: Path) -> None:
    clear = photo().convert("RGBA")
    clear.putalpha(0)
    images = read_images(saved(tmp_path, {"a.png": clear, "b.png": photo()}), "pictures")
    np.testing.assert_array_equal(images.pixels[0], images.pixels[1])  # the colour below
    assert images.notes == ("1 transparent image was made RGB.",)
    both = read_images(saved(tmp_path, {"a.png": clear, "b.png": photo().convert("LA")}), "p")
    assert both.pixels.shape[1] == 4 and both.notes == ()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_model_fixes_channels_and_size(tmp_path: Path, channels: int) -> None:
    paths = saved(tmp_path, {"a.png": photo(), "b.png": photo(20, 20).convert("L")})
    images = read_images(paths, "pictures", image_size=(4, 6), channels=channels)
    assert images.pixels.shape == (2, channels, 4, 6)
    expected = photo().convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    resized = expected.resize((6, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.pixels[0], first_channels(resized))
    assert images.notes[0] == ("2 images (from 8x12 to 20x20, height x width) were resized to 4x6.")


def test_unequal_sizes_become_a_square(tmp_path: Path) -> None:
    pictures = {"a.png": photo(30, 40), "b.png": photo(20, 20), "c.png": photo(50, 25)}
    images = read_images(saved(tmp_path, pictures), "pictures")
    assert images.pixels.shape == (3, 3, 25, 25)  # the median of 30, 20 and 25
    assert images.notes == (
        "3 images (from 20x20 to 50x25, height x width) were resized to 25x25; image_size "
        "(--image-size) changes that.",
    )
    large = saved(tmp_path, {"d.jpg": photo(300, 400), "e.jpg": photo(500, 375)})
    assert read_images(large, "pictures").pixels.shape == (2, 3, 64, 64)
    assert read_images(large, "pictures", image_size=100).pixels.shape == (2, 3, 100, 100)
    assert read_images(large[:1], "pictures").pixels.shape == (1, 3, 300, 400)  # one size stays


def test_large_photographs_are_averaged_not_sampled(tmp_path: Path) -> None:
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    path = saved(tmp_path, {"a.jpg": Image.fromarray(stripes)}, quality=95)
    small = read_images(path, "pictures", image_size=8).pixels
    assert small.min() > 110 and small.max() < 145


@pytest.mark.parametrize("size", [0, (4, -1), 2.5, (1, 2, 3)])
def test_sizes_that_are_none(tmp_path: Path, size: Any) -> None:
    with pytest.raises(InputError, match="image_size must be"):
        read_images(saved(tmp_path, {"a.png": photo()}), "pictures", image_size=size)


def test_columns_and_files_are_read_alike(tmp_path: Path) -> None:
    paths = saved(tmp_path, {"a.jpg": photo(20, 30), "b.png": photo(9, 9).convert("L")})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [[{"bytes": path.read_bytes(), "path": None}] for path in paths]
    column = pa.chunked_array([pa.array(row, kind) for row in rows])
    images, same = decode_images(column, "table"), read_images(paths, "files")
    np.testing.assert_array_equal(images.pixels, same.pixels)
    assert images.notes == same.notes and len(images.notes) == 2
    assert decode_images(pa.chunked_array([], pa.binary()), "table").pixels.shape[0] == 0


def odd_one(kind: str) -> tuple[Any, dict[str, Any]]:
    """Return a picture, and how it is saved, that is not like `photo(8, 8)`."""
    other = photo(8, 8, seed=9)
    deep_one = Image.fromarray(pixels(1, (8, 8))[0].astype(np.uint16) * 256 + 7)
    return {
        "larger": (photo(9, 8, seed=9), {}),
        "grey": (other.convert("L"), {}),
        "transparent": (other.convert("RGBA"), {}),
        "palette": (other.quantize(8), {}),
        "turned": (other, {"exif": exif(6)}),
        "turned tiff": (other, {"exif": exif(3), "format": "TIFF"}),
        "16 bits": (deep_one, {}),
        "animated": (other, {"save_all": True, "append_images": [photo(8, 8)]}),
        "cmyk": (other.convert("CMYK"), {"format": "TIFF"}),
        "bmp": (other, {"format": "BMP"}),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        *("larger", "grey", "transparent", "palette", "turned", "turned tiff"),
        *("16 bits", "animated", "cmyk", "bmp"),
    ],
)
def test_one_image_that_differs_may_come_first_or_last(tmp_path: Path, kind: str) -> None:
    """Images that are all alike are decoded in another way, until one differs."""
    paths = saved(tmp_path, {f"{i}.png": photo(8, 8, seed=i) for i in range(3)})
    picture, options = odd_one(kind)
    odd = saved(tmp_path, {"odd.png": picture}, **options)
    last, first = read_images(paths + odd, "pictures"), read_images(odd + paths, "pictures")
    alone = read_images(odd, "p", image_size=last.pixels.shape[2:], channels=last.pixels.shape[1])
    np.testing.assert_array_equal(last.pixels, np.roll(first.pixels, -1, axis=0))
    np.testing.assert_array_equal(last.pixels[3], alone.pixels[0])
    assert last.notes == first.notes
    if kind != "larger":
        np.testing.assert_array_equal(last.pixels[0, :3], first_channels(photo(8, 8)))


def test_null_rows_and_paths_of_a_column(tmp_path: Path) -> None:
    [path] = saved(tmp_path, {"a.png": photo(8, 8)})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    content = path.read_bytes()
    rows = [{"bytes": content, "path": None}, {"bytes": None, "path": str(path)}]
    column = pa.chunked_array([pa.array([*rows, None], kind)])
    images = decode_images(column.slice(1, 1), "table")
    np.testing.assert_array_equal(images.pixels[0], first_channels(photo(8, 8)))
    np.testing.assert_array_equal(
        decode_images(column.slice(0, 2), "table").pixels[1:], images.pixels
    )
    with pytest.raises(InputError, match="image in row 2 of the table must hold an image"):
        decode_images(column, "table")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no image", "no image that Pillow knows"),
        (b"", "no image that Pillow knows"),
        (png(pixels(1, (90, 90))[0])[:900], "truncated"),
    ],
)
def test_a_damaged_image_in_a_column_is_named_by_its_row(content: bytes, why: str) -> None:
    column = pa.chunked_array([[png(pixels(1)[0])], [content]])
    message = rf"image in row 1 of the table could not be read \(.*{why}"
    with pytest.raises(InputError, match=message):
        decode_images(column, "table")


# Folders ---------------------------------------------------------------------------------------


def folder_of(folder: Path, **options: Any) -> ImageFolder:
    return read_image_folder(folder, **options)


def classes_of(read: ImageFolder, split: str = "train") -> list[str]:
    return read.splits[split].labels.values.tolist()


def test_a_file_is_an_image_by_its_content(tmp_path: Path) -> None:
    for name, kind in (("a/0.jfif", "JPEG"), ("b/0.txt.dat", "PNG"), ("b/1", "BMP")):
        saved(tmp_path, {name: photo()}, format=kind)
    saved(tmp_path, {"a/1.png": photo()}, format="JPEG")
    read = folder_of(tmp_path)
    assert classes_of(read) == ["a", "a", "b", "b"] and read.notes == ()
    assert read.splits["train"].names == ("a/0.jfif", "a/1.png", "b/0.txt.dat", "b/1")


def test_companions_of_images_are_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, {"a/0.png": photo(), "b/deep/0.png": photo(), "a/.hidden.png": photo()})
    saved(tmp_path, {"a/Thumbs.db": b"\xd0\xcf", "a/desktop.ini": "x", "b/notes.TXT": "x"})
    saved(tmp_path, {"__MACOSX/a/._0.png": b"x", "b/.ipynb_checkpoints/0.png": photo()})
    read = folder_of(tmp_path)
    assert read.splits["train"].names == ("a/0.png", "b/deep/0.png") and read.notes == ()


def test_files_that_are_no_images_are_counted_and_named(tmp_path: Path) -> None:
    saved(tmp_path, {"a/0.png": photo(), "bee/1.png": photo(), "bee/2.png": photo(60, 60)})
    truncate(tmp_path / "bee/2.png")  # the only one of another size
    saved(tmp_path, {"bee/0.heic": b"\0\0\0\x18ftypheic" + bytes(99), "a/1.eps": "%!PS-Adobe-3.0"})
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    read = folder_of(tmp_path)
    assert read.splits["train"].inputs.shape == (2, 3, 8, 12)
    assert read.splits["train"].names == ("a/0.png", "bee/1.png")
    assert read.notes == (
        "4 files could not be read as images and were left out: a/1.eps, a/gone.png, bee/0.heic, "
        "bee/2.png.",
    )
    saved(tmp_path, {f"a/x{i}": b"junk" for i in range(9)})
    assert folder_of(tmp_path).notes[0].endswith("a/x0, a/x1, a/x2 and 8 more.")


@pytest.mark.parametrize(
    "content", [None, b"\0\0\0\x18ftypheic", png(pixels(1, (90, 90))[0])[:900]]
)
def test_a_class_without_an_image_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    saved(tmp_path, {"ant/0.png": photo(), "bee/0.png": photo()})
    (tmp_path / "wasp").mkdir()
    if content is not None:
        saved(tmp_path, {"wasp/0.heic": content})
    with pytest.raises(InputError, match=r"each class folder must hold an image, got none in wasp"):
        folder_of(tmp_path)


def test_images_in_no_class_are_told(tmp_path: Path) -> None:
    saved(tmp_path, {"a/0.png": photo(), "b/0.png": photo(), "loose.png": photo(), "x.bin": b"x"})
    assert folder_of(tmp_path).notes == ("1 image was in no class folder and left out: loose.png.",)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "TESTING"),
        ("seg_train", "seg_test"),
        ("train_images", "Test-set"),
        ("my.training", "data val"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Train/train", "dev"),
    ],
)
def test_folders_called_after_a_split(tmp_path: Path, train: str, test: str) -> None:
    write_images(tmp_path / train, {"b": pixels(1), "a": pixels(2)})
    write_images(tmp_path / test, {"b": pixels(1, seed=1)})
    read = folder_of(tmp_path)
    held_out = "test" if "test" in test.lower() else "validation"
    assert list(read.splits) == ["train", held_out] and read.notes == ()
    assert classes_of(read) == ["a", "a", "b"] and classes_of(read, held_out) == ["b"]
    assert read.splits["train"].names[2] == f"{train}/b/0.png"
    np.testing.assert_array_equal(read.splits[held_out].inputs[0], pixels(1, seed=1))


def test_the_training_images_decide_the_shape_of_all_splits(tmp_path: Path) -> None:
    saved(tmp_path, {"train/a/0.png": photo(), "train/b/0.png": photo()})
    saved(tmp_path, {"test/a/0.png": photo(30, 30).convert("L"), "test/b/0.png": photo()})
    read = folder_of(tmp_path)
    assert read.splits["test"].inputs.shape == (2, 3, 8, 12)
    assert read.notes == (
        "test: 1 image (of 30x30, height x width) was resized to 8x12.",
        "test: 1 grey image was made RGB.",
    )
    read = folder_of(tmp_path, image_size=5)
    assert {raw.inputs.shape for raw in read.splits.values()} == {(2, 3, 5, 5)}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("train/a", "train/b", "cats"),
            r"got train beside cats in .*; give .*train itself, rename",
        ),
        (("train/a", "train/b", "test/a", "docs/x"), r"got test, train beside docs in .*; give"),
        (("car", "bus", "train"), "got train beside bus, car in .*; move train away or, if"),
        (("cat", "dog", "seg_test"), "got seg_test beside cat, dog in .*; move seg_test away"),
        (("train/a", "test/a", "seg_test/a"), "one folder for the test split, got seg_test and te"),
        (("Train/a", "train/a"), "one folder for the train split, got Train and train"),
        (("train", "test/a"), "train split must hold one subfolder of images a class, got none"),
        (("val/a", "test/a"), "splits must hold one called train, got only"),
        (("cat/train", "cat/test", "dog/train"), "class folders must hold no splits, got cat/te"),
    ],
)
def test_unclear_splits_are_a_question(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    for name in folders:
        saved(tmp_path, {f"{name}/0.png": photo()})
    with pytest.raises(InputError, match=message) as caught:
        folder_of(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["test", "Test-images", "seg_pred", "seg_pred/seg_pred"])
def test_an_unlabelled_split_is_left_out_and_told(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "train", {"a": pixels(1), "b": pixels(1)})
    saved(tmp_path, {f"{name}/0.png": photo()})
    read = folder_of(tmp_path)
    assert list(read.splits) == ["train"]
    [note] = read.notes
    assert "holds images without class folders and was left out; predict" in note
    assert note.startswith(name.partition("/")[0])


def test_a_split_with_other_classes_only_is_left_out_and_told(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": pixels(1), "b": pixels(1)})
    write_images(tmp_path / "test", {"unknown": pixels(3)})
    read = folder_of(tmp_path)
    assert list(read.splits) == ["train"]
    assert read.notes == ("test holds no class of train and was left out.",)


def test_a_split_alone_and_classes_called_like_splits_inside(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"train": pixels(1), "bus": pixels(2)})
    assert classes_of(folder_of(tmp_path)) == ["bus", "bus", "train"]
    write_images(tmp_path / "other" / "val", {"a": pixels(1), "b": pixels(2)})
    assert classes_of(folder_of(tmp_path / "other")) == ["a", "b", "b"]


# Unlabelled images -----------------------------------------------------------------------------


def test_images_to_predict_are_found(tmp_path: Path) -> None:
    saved(tmp_path, {"0.png": photo(), "x/y/1.png": photo(9, 9).convert("L"), "x/notes.md": "x"})
    found = find_images(tmp_path)
    assert found.names == ("0.png", "x/y/1.png") and found.notes == ()
    images = read_images(found.paths, "photographs", image_size=(6, 6), channels=3)
    assert images.pixels.shape == (2, 3, 6, 6)
    one = find_images(tmp_path / "x" / "y" / "1.png")
    assert one.names == ("1.png",) and one.paths == (tmp_path / "x/y/1.png",)


def test_files_that_cannot_be_predicted(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"source must (hold images|be an image or a folder)"):
            find_images(missing)
    saved(tmp_path, {"bad.png": photo(60, 60), "junk": b"junk"})
    truncate(tmp_path / "bad.png")
    with pytest.raises(InputError, match=r"2 files were unreadable: bad\.png, junk"):
        find_images(tmp_path)
    with pytest.raises(InputError, match=r"bad\.png could not be read"):
        find_images(tmp_path / "bad.png")
    saved(tmp_path, {"good.png": photo()})
    found = find_images(tmp_path)
    assert found.names == ("good.png",)
    assert found.notes == ("2 files could not be read as images and were left out: bad.png, junk.",)


# Tables that list images -----------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "train", "images", "train/train"])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_a_column_that_lists_images(tmp_path: Path, below: str, suffix: str) -> None:
    paths = saved(tmp_path / below, {f"{i:04}.jpg": photo() for i in range(25)})
    saved(tmp_path, {"train.csv": "x", "texts/0001.txt": "x", "features/0002.npy": b"x"})
    names = [f"{i:04}{suffix}" for i in range(25)]
    assert image_paths(names[::-1], tmp_path) == paths[::-1]
    assert image_paths([str(path) for path in paths], tmp_path) == paths


def test_lists_with_folders_and_in_parts(tmp_path: Path) -> None:
    parts = saved(tmp_path, {"part_1/a.jpg": photo(), "part_2/b.jpg": photo()})
    assert image_paths(["a", "b"], tmp_path) == parts
    deep_ones = saved(tmp_path, {"train/ant/0.png": photo(), "train/bee/0.png": photo()})
    for names in (["train/ant/0.png", "train\\bee\\0.png"], ["ant/0.png", "bee/0"]):
        assert image_paths(names, tmp_path) == deep_ones


def test_columns_that_list_no_images(tmp_path: Path) -> None:
    saved(tmp_path, {"0.png": photo(), "0.wav": b"RIFF", "1.wav": b"RIFF", "a/0.png": photo()})
    for names in (
        [],
        ["a", "b"],
        ["0.png", "x", "y"],
        ["0.wav", "1.wav"],
        ["", None],
        ["a/b" * 2000],
    ):
        assert image_paths(names, tmp_path) is None


def test_missing_files_of_a_list_are_counted_and_named(tmp_path: Path) -> None:
    saved(tmp_path, {f"{i}.png": photo() for i in range(20)})
    names = [f"{i}.png" for i in range(30)]
    message = r"10 of 30 missing: 20\.png, .* 24\.png \.\.\.; drop these rows"
    with pytest.raises(InputError, match=message):
        image_paths(names, tmp_path)


def test_a_name_of_several_files_is_a_question(tmp_path: Path) -> None:
    train, test = saved(tmp_path, {"train/0.png": photo(), "test/0.png": photo()})
    with pytest.raises(InputError, match=r"got 0\.png, which is each of test/0.png, train/0.png"):
        image_paths(["0.png"], tmp_path)
    assert image_paths(["0.png"], tmp_path, table="train.csv") == [train]
    assert image_paths(["0"], tmp_path, table="test.csv") == [test]
    saved(tmp_path, {"train/0.jpg": photo()})
    with pytest.raises(InputError, match=r"train/0.jpg, train/0.png; write the subfolder"):
        image_paths(["0"], tmp_path, table="train.csv")
