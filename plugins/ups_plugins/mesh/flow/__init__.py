"""Flow past obstacles on meshes of their own: a simulator for stores of meshes."""
