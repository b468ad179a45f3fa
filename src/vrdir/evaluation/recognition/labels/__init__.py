"""Labels of data sets: a folder per class, CSV, COCO, YOLO, VOC, Market-1501."""
