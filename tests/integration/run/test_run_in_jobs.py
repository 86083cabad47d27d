"""`dray run` in a job whose images a root agent has put together: the users' examples."""

import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.run.conftest import Node
from tests.support.agents import needs_root
from tests.support.conditions import eventually_sync
from tests.support.run_site import DRAY

pytestmark = needs_root
