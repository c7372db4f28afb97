"""What a demo begins with."""

import os
import shutil
from unittest.mock import patch

from backstock.demo import plan_demo
from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.home import Home


def test_a_demo_begins_afresh_wherever_its_data_are(tmp_path):
    """Nothing of the last demo is left, also where root's servers keep their data outside of the folder."""
    home = Home(tmp_path / ".backstock")
    stores = EmbeddedPostgres(home.demo.folder / "postgres"), EmbeddedRedis(home.demo.folder / "redis")
    try:
        for store in stores:
            (store.home / "data").mkdir(parents=True, exist_ok=True)
        with patch.dict(os.environ):
            plan_demo(home, 1, lambda _name, _line: None)

        assert not any((store.home / "data").exists() for store in stores)
    finally:
        for store in stores:
            shutil.rmtree(store.home, ignore_errors=True)
