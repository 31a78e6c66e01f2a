from keeprate.errors import needs


def is_parquet(path):
    return path.suffix == ".parquet"


def concat(paths, *, as_text):
    pa = needs("pyarrow")
    out = []
    for p in paths:
        if is_parquet(p):
            with needs("pyarrow.parquet").ParquetFile(p) as f:
                out.append(f.read())
        else:
            c = needs("pyarrow.csv")
            names = open(p).readline().strip().split(",")
            out.append(
                c.read_csv(
                    p,
                    convert_options=c.ConvertOptions(
                        column_types={n: pa.string() for n in names if as_text(n)},
                        strings_can_be_null=True,
                        null_values=[""],
                    ),
                )
            )
    return pa.concat_tables(out, promote_options="permissive"), ()
