"""What is deployed fits the code: image, compose file and chart, judged without a container engine."""
