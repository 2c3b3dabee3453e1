"""The pictures of an evaluation, as PNG files. Each says on how many images and on which model it rests."""
