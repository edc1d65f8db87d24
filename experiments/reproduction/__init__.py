"""The comparison of the blog post's four training curves on IMDB with the curves of our seeds."""
