"""The versions, the GPU, and its two limits."""

from stage import Stage  # isort: skip  sets the path

import measuring
import torch


def main() -> None:
    stage = Stage("card")
    stage.write(**measuring.setting(stage.device, stage.seed))
    if stage.cuda:
        card = torch.cuda.get_device_properties(0)
        stage.write(multiprocessors=card.multi_processor_count, memory=card.total_memory, cuda=torch.version.cuda)
    size = 2**30 if stage.cuda else 2**25
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=stage.device)
    target = torch.empty_like(source)
    copy = stage.times(lambda: target.copy_(source), 0.5)["eager"]
    stage.write(bytes_per_second=2 * size / copy, what=f"copy of {size} bytes, read and written")
    side = 8192 if stage.cuda else 512
    a, b = (torch.randn(side, side, device=stage.device, dtype=torch.bfloat16) for _ in range(2))
    product = stage.times(lambda: a @ b, 0.5)["eager"]
    stage.write(flop_per_second=2 * side**3 / product, what=f"bfloat16 product, {side} x {side} x {side}")
    stage.finish()


if __name__ == "__main__":
    main()
